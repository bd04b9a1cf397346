"""config.yaml is whole and each way to get it wrong ends in a line that names the key."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slpd_core import config
from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[1]

HIPT = {"evaluate": {"preset": "hipt"}}


@pytest.fixture
def values():
    return read_shipped()


def overlaid(values, overlay):
    """The deep merge Snakemake does with --configfile."""
    for key, value in overlay.items():
        below = values.get(key)
        both_nest = isinstance(below, dict) and isinstance(value, dict)
        values[key] = overlaid(dict(below), value) if both_nest else value
    return values


def test_the_config_of_the_paper(values):
    settings = config.load(values)
    assert settings.grid == 16
    assert settings.pretrain.run("dino").uses_prototypes is False
    assert settings.pretrain.run("slpd").uses_prototypes is True
    assert settings.pretrain.run("slpd").out_dim == 65_536


@pytest.mark.parametrize("path", sorted((ROOT / "cohorts").glob("*.yaml")), ids=lambda path: path.name)
def test_every_cohort_overlays_the_config(values, path):
    overlay = yaml.safe_load(path.read_text())
    of_any = path.stem == "paper"  # it stands over a cohort's own file
    assert config.load(overlaid(values, overlay)).cohort == ("cohort" if of_any else path.stem)


@pytest.mark.parametrize("cohort", ["tcga_nsclc", "tcga_brca"])
@pytest.mark.parametrize("over", [[], ["paper"]])
def test_the_papers_cohorts_take_its_encoder_and_folds_or_say_what_is_missing(values, cohort, over):
    for name in (cohort, *over):
        values = overlaid(values, yaml.safe_load((ROOT / "cohorts" / f"{name}.yaml").read_text()))
    settings = config.load(values)
    encoder = settings.patch_encoder.cohort_encoder
    assert (encoder.source, encoder.mean, encoder.std) == ("hipt", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(FileNotFoundError, match=r"no file HIPT/HIPT_4K/Checkpoints/vit256_small_dino\.pth"):
        encoder.require_weights()
    with pytest.raises(FileNotFoundError, match=r"no splits_0\.csv in HIPT/2-Weakly.*/tcga_(lung|brca);"):
        settings.folds.require_splits()
    assert settings.pretrain.run("slpd").n_prototypes == {"tcga_nsclc": 4, "tcga_brca": 2}[cohort]


def test_crops_of_the_paper_are_those_of_its_grid_and_of_larger_ones():
    assert {config.scale_crops(grid) for grid in range(16, 65)} == {(14, 6)}


@given(st.integers(2, 15))
def test_crops_without_a_size_are_shares_of_a_smaller_grid(grid):
    global_crop, local_crop = config.scale_crops(grid)
    assert 1 <= local_crop < global_crop <= grid
    assert abs(local_crop - 3 / 8 * grid) <= 0.5
    assert abs(global_crop - 7 / 8 * grid) < 1
    assert global_crop < grid or grid == 2, "a crop of the whole grid is always the same"


@given(st.integers(2, 32), st.sampled_from([{}, {"preset": "paper"}, {"preset": "authors_code"}]))
def test_every_grid_runs_without_further_settings(grid, run):
    values = overlaid(read_shipped(), {"pretrain": {"runs": {"slpd": run}}})
    settings = config.load(overlaid(values, {"regions": {"size_px": 256 * grid}}))
    assert settings.grid == grid
    for name in ("dino", "slpd"):
        crops = settings.pretrain.run(name)
        assert (crops.global_crop_size, crops.local_crop_size) == config.scale_crops(grid)
    code = run.get("preset") == "authors_code"
    assert settings.pretrain.run("slpd").cluster_crop == (config.scale_crops(grid)[0] if code else None)


def test_the_preset_keeps_its_numbers_on_the_papers_grid(values):
    run = config.load(overlaid(values, {"pretrain": {"runs": {"slpd": {"preset": "authors_code"}}}})).pretrain.run(
        "slpd"
    )
    assert (run.global_crop_size, run.local_crop_size, run.cluster_crop) == (14, 6, 14)


@pytest.mark.parametrize(
    ("overlay", "crops"),
    [
        ({"global_crop_size": 5}, (5, 3)),
        ({"global_crop_size": 2}, (2, 2)),
        ({"local_crop_size": 5}, (7, 5)),
        ({"runs": {"slpd": {"global_crop_size": 6, "local_crop_size": 1}}}, (6, 1)),
        ({"global_crop_size": 6, "runs": {"slpd": {"global_crop_size": None}}}, (7, 3)),
    ],
)
def test_a_crop_of_a_stated_size_keeps_it(values, overlay, crops):
    run = config.load(overlaid(values, {"regions": {"size_px": 2048}, "pretrain": overlay})).pretrain.run("slpd")
    assert (run.global_crop_size, run.local_crop_size) == crops


@pytest.mark.parametrize(
    ("overlay", "line"),
    [
        ({"local_crop_size": 4}, "pretrain.local_crop_size: 4 is larger than global_crop_size 3; lower it"),
        (
            {"global_crop_size": 5},
            "pretrain.global_crop_size: 5 exceeds the 4 patches along a region; lower it, or null",
        ),
        (
            {"runs": {"slpd": {"local_crop_size": 4}}},
            "pretrain.runs.slpd.local_crop_size: 4 is larger than global_crop_size 3; lower it",
        ),
        (
            {"runs": {"slpd": {"preset": "authors_code", "cluster_crop": 14}}},
            "pretrain.runs.slpd.cluster_crop: 14 exceeds the 4 patches along a region; lower it, or null",
        ),
    ],
)
def test_a_crop_that_does_not_fit_a_small_grid_is_one_line(values, overlay, line):
    with pytest.raises(ValueError, match=r"^settings:\n") as error:
        config.load(overlaid(values, {"regions": {"size_px": 1024}, "pretrain": overlay}))
    assert str(error.value).splitlines()[1:] == [f"  {line}"]


def test_an_overlay_adds_and_removes_names_of_columns(values):
    for columns in ({"label": "diagnosis", "path": "file"}, {"label": None, "slide_id": "scan"}):
        values = overlaid(values, {"sheet": {"columns": columns}})
    assert config.load(values).sheet.columns == {"path": "file", "slide_id": "scan"}


def test_numbers_that_arrive_as_text_are_numbers(values):
    values["pretrain"]["base_lr"] = "5e-4"
    values["seed"] = "7"
    settings = config.load(values)
    assert settings.pretrain.base_lr == 5e-4
    assert settings.seed == 7


def test_arguments_of_the_encoder_that_arrive_as_text_are_numbers(values):
    arguments = {"init_values": "1e-5", "depth": "24", "act_layer": "silu", "no_embed_class": True}
    settings = config.load(overlaid(values, {"patch_encoder": {"model_kwargs": arguments}}))
    assert settings.patch_encoder.model_kwargs == {
        "init_values": 1e-5,
        "depth": 24,
        "act_layer": "silu",
        "no_embed_class": True,
    }


@pytest.mark.parametrize(
    "encoder",
    [
        {"source": "timm"},
        {"source": "timm", "name": "hf-hub:MahmoodLab/UNI2-h"},
        {"source": "timm", "weights": "w.pth", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        {"source": "hipt", "weights": "vit256_small_dino.pth"},
        {"source": "random", "weights": "left.pth"},
    ],
    ids=lambda encoder: " ".join(map(str, encoder.values())),
)
def test_a_source_of_the_encoder_needs_only_what_it_uses(values, encoder):
    section = config.load(overlaid(values, {"patch_encoder": encoder})).patch_encoder.cohort_encoder
    weights = encoder.get("weights")
    assert section.files == ([weights] if weights and encoder["source"] != "random" else [])


def test_missing_files_of_the_encoder_are_named_and_those_there_are_inputs(values, tmp_path):
    def encoder(**overlay):
        settings = config.load(overlaid(dict(values), {"patch_encoder": {"source": "timm"} | overlay}))
        return settings.patch_encoder.cohort_encoder

    folder = encoder(name=f"local-dir:{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"patch_encoder\.name: .* has no config\.json; .*hf download"):
        folder.require_weights()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).touch()
    folder.require_weights()
    assert folder.files == [str(tmp_path / "config.json"), str(tmp_path / "model.safetensors")]
    file = encoder(weights="gone.pth", mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(FileNotFoundError, match=r"patch_encoder\.weights: no file gone\.pth; download"):
        file.require_weights()
    encoder(source="random", weights="gone.pth").require_weights()


def test_a_run_without_overrides_is_the_section_itself(values):
    settings = config.load(overlaid(values, {"pretrain": {"runs": {"slpd": None}}}))
    assert settings.pretrain.runs["slpd"] == {}
    assert settings.pretrain.run("slpd").alpha_inter == 1


def test_a_preset_goes_under_a_runs_own_overrides(values):
    runs = {"text": {"preset": "paper"}, "code": {"preset": "authors_code", "min_regions": 17}}
    values["pretrain"] |= {"kmeans_restarts": 9, "matching": "nearest", "runs": runs}
    pretrain = config.load(overlaid(values, {"evaluate": {"classifiers": {"dino": None, "slpd": None}}})).pretrain
    assert pretrain.kmeans_restarts == 9
    text, code = pretrain.run("text").model_dump(), pretrain.run("code").model_dump()
    assert {key: text[key] for key in config.PRESETS["paper"]} == config.PRESETS["paper"]
    of_code = config.PRESETS["authors_code"] | {"min_regions": 17}
    assert {key: code[key] for key in of_code} == of_code
    assert text.items() - config.PRESETS["paper"].items() == code.items() - of_code.items()


@pytest.mark.parametrize(("M", "regions"), [(4, 32), (2, 16), ("2", 16), (3, 24)])
def test_the_released_code_clusters_slides_of_eight_regions_per_prototype(values, M, regions):
    """NSCLC has M = 4 and BRCA M = 2, be it the section's or the run's own."""
    runs = {"slpd": {"preset": "authors_code"}, "dino": {"preset": "authors_code", "n_prototypes": 4}}
    pretrain = config.load(overlaid(values, {"pretrain": {"n_prototypes": M, "runs": runs}})).pretrain
    assert pretrain.run("slpd").min_regions == regions
    assert pretrain.run("dino").min_regions == 32


def test_the_classifiers_are_trained_as_hipt_does_by_its_preset_and_by_default(values):
    assert config.load(values).evaluate.training == config.load(overlaid(values, HIPT)).evaluate.training
    changed = {"evaluate": {"lr": 1, "epochs": 3, "dropout": 0, "weight_decay": 0, "knn_n_neighbors": 1, "logreg_c": 7}}
    training = config.load(overlaid(overlaid(values, changed), HIPT)).evaluate.training
    assert training == config.load(values).evaluate.training.model_copy(update={"logreg_c": 7})


def test_the_presets_name_the_same_settings_and_the_file_is_the_papers(values):
    assert config.PRESETS["paper"].keys() - {"min_regions"} == config.PRESETS["authors_code"].keys()
    assert values["pretrain"].items() >= config.PRESETS["paper"].items()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"preset": "text"}, r"pretrain\.runs\.slpd\.preset: 'text' is none of paper, authors_code; name one"),
        ({"clustering": "global"}, r"pretrain\.runs\.slpd\.clustering: global, but alpha_inter is 1\.0; set it to 0"),
        ({"cluster_crop": 17}, r"pretrain\.runs\.slpd\.cluster_crop: 17 exceeds the 16 patches along a region"),
        ({"augment": "mirror"}, r"pretrain\.runs\.slpd\.augment: "),
    ],
)
def test_a_run_that_cannot_be_is_refused(values, run, message):
    with pytest.raises(ValueError, match=message):
        config.load(overlaid(values, {"pretrain": {"runs": {"slpd": run}}}))


@pytest.mark.parametrize("nothing", [None, []])
def test_an_overlay_can_leave_a_row_out(values, nothing):
    settings = config.load(overlaid(values, {"evaluate": {"classifiers": {"dino": nothing}}}))
    assert list(settings.evaluate.classifiers) == ["mean_color", "patch_tokens", "slpd"]
    assert list(settings.pretrain.runs) == ["dino", "slpd"]


def test_an_overlay_can_remove_a_run_and_its_row(values):
    overlay = {"pretrain": {"runs": {"dino": False}}, "evaluate": {"classifiers": {"dino": None}}}
    settings = config.load(overlaid(values, overlay))
    assert list(settings.pretrain.runs) == ["slpd"]
    assert list(settings.evaluate.classifiers) == ["mean_color", "patch_tokens", "slpd"]


def test_another_encoder_differs_from_the_own_in_its_overrides_alone(values):
    values["pretrain"]["runs"] = {"slpd": {}}
    overlay = {"patch_encoder": {"compared": {"plain": {"patch_px": 128}, "same": None, "gone": False}}}
    rows = {"evaluate": {"classifiers": {"plain": ["knn"], "dino": None}}}
    encoders = config.load(overlaid(overlaid(values, overlay), rows)).patch_encoder
    assert list(encoders.encoders()) == ["patch_encoder", "patch_encoder.compared.plain", "patch_encoder.compared.same"]
    assert encoders.encoder("same") == encoders.cohort_encoder
    assert encoders.encoder("plain") == encoders.cohort_encoder.model_copy(update={"patch_px": 128})


def number_keys(section, above=()):
    """The keys, from the top down, of every number in a parsed config."""
    for key, value in section.items() if isinstance(section, dict) else enumerate(section):
        if isinstance(value, dict | list):
            yield from number_keys(value, (*above, key))
        elif type(value) in (int, float):
            yield (*above, key)


PARSED = read_shipped()


@pytest.mark.parametrize("wrong", [True, False, float("inf"), float("nan"), "inf", "nan"], ids=repr)
@pytest.mark.parametrize("keys", list(number_keys(PARSED)), ids=lambda keys: ".".join(map(str, keys)))
def test_a_number_is_neither_a_truth_value_nor_endless(values, keys, wrong):
    *above, last = keys
    section = values
    for key in above:
        section = section[key]
    section[last] = wrong
    with pytest.raises(ValueError, match=r"^settings:") as error:
        config.load(values)
    assert f"  {'.'.join(map(str, keys))}: " in str(error.value)
    assert f"found {wrong!r}" in str(error.value)


@pytest.mark.parametrize(
    ("overlay", "key", "what"),
    [
        ({"tisue": {}}, "tisue", "unknown key"),
        ({"sheet": {"columns": {"lable": "x"}}}, "sheet.columns.lable", "there are slide_id, patient_id, label"),
        ({"sheet": {"columns": {"label": ""}}}, "sheet.columns.label", "at least 1 character (found '')"),
        ({"sheet": {"columns": "label"}}, "sheet.columns", "give keys below it"),
        ({"tissue": {"closing": 3}}, "tissue.closing", "unknown key"),
        ({"tissue": {"method": "hest"}}, "tissue.weights", "null, but method is hest; download its weights"),
        ({"tissue": {"weights": "x.pth"}}, "tissue.weights", "given, but method is otsu"),
        ({"tissue": {"method": "hed"}}, "tissue.method", "'otsu', 'grandqc' or 'hest'"),
        ({"regions": {"min_focus": -1}}, "regions.min_focus", "greater than or equal to 0 (found -1)"),
        ({"tokens": {"stain_normalization": "vahadane"}}, "tokens.stain_normalization", "'macenko' or 'reinhard'"),
        ({"seed": -1}, "seed", "-1"),
        ({"cohort": "../up"}, "cohort", "'../up'"),
        ({"regions": {"size_px": 4000}}, "regions.size_px", "multiple of patch_encoder.patch_px 256"),
        ({"regions": {"edge": "wrap"}}, "regions.edge", "'wrap'"),
        ({"regions": {"min_tissue_fraction": True}}, "regions.min_tissue_fraction", "give a number, not true or false"),
        ({"regions": {"target_mpp": 20}}, "regions.target_mpp", "less than or equal to 5 (found 20)"),
        ({"regions": {"target_mpp": 0.04}}, "regions.target_mpp", "greater than or equal to 0.05 (found 0.04)"),
        ({"tissue": {"thumbnail_mpp": 0.9}}, "tissue.thumbnail_mpp", "greater than or equal to 1 (found 0.9)"),
        ({"tissue": {"thumbnail_mpp": 65}}, "tissue.thumbnail_mpp", "less than or equal to 64 (found 65)"),
        ({"tissue": None}, "tissue", "empty; delete the line or fill it in"),
        ({"tissue": {"closing_um": None}}, "tissue.closing_um", "empty; delete the line or fill it in"),
        ({"pretrain": {"runs": None}}, "pretrain.runs", "empty; delete the line or fill it in"),
        ({"evaluate": {"classifiers": None}}, "evaluate.classifiers", "empty; delete the line or fill it in"),
        ({"tissue": 5}, "tissue", "give keys below it, as config.yaml does (found 5)"),
        ({"patch_encoder": {"source": "hipt"}}, "patch_encoder.weights", "give the path of its vit256_small_dino.pth"),
        ({"patch_encoder": {"name": "hf-hub:a/b"}}, "patch_encoder.name", "set source to timm"),
        ({"patch_encoder": {"name": "local-dir:a"}}, "patch_encoder.name", "set source to timm"),
        (
            {"patch_encoder": {"source": "timm", "weights": "w.pth", "std": [0.2, 0.2, 0.2]}},
            "patch_encoder.mean",
            "does not say how its pixels were normalised; give the mean",
        ),
        (
            {"patch_encoder": {"source": "timm", "weights": "w.pth", "mean": [0.5, 0.5, 0.5]}},
            "patch_encoder.std",
            "does not say how its pixels were normalised; give the std",
        ),
        ({"patch_encoder": {"model_kwargs": {"num_classes": 2}}}, "patch_encoder.model_kwargs", "delete it"),
        (
            {"patch_encoder": {"model_kwargs": {"pretrained": True}}},
            "patch_encoder.model_kwargs",
            "no part of an architect",
        ),
        ({"patch_encoder": {"model_kwargs": "depth: 3"}}, "patch_encoder.model_kwargs", "give keys below it"),
        ({"patch_encoder": {"input_px": 0}}, "patch_encoder.input_px", "greater than 0 (found 0)"),
        ({"patch_encoder": {"interpolate_offset": 1}}, "patch_encoder.interpolate_offset", "less than 1 (found 1)"),
        ({"patch_encoder": {"pooling": "mean"}}, "patch_encoder.pooling", "'mean'"),
        ({"patch_encoder": {"source": "file"}}, "patch_encoder.source", "'file'"),
        ({"patch_encoder": {"std": [0.5, 0, 0.5]}}, "patch_encoder.std.1", "greater than 0 (found 0)"),
        ({"pretrain": {"runs": {"slpd": {"alpha": 1}}}}, "pretrain.runs.slpd.alpha", "unknown key"),
        ({"pretrain": {"runs": {"slpd": {"epochs": True}}}}, "pretrain.runs.slpd.epochs", "not true or false"),
        ({"pretrain": {"runs": {"slpd": {"n_heads": 5}}}}, "pretrain.runs.slpd.embed_dim", "multiple of n_heads 5"),
        (
            {"pretrain": {"runs": {"slpd": {"global_crop_size": 17}}}},
            "pretrain.runs.slpd.global_crop_size",
            "exceeds the 16",
        ),
        ({"pretrain": {"runs": {"slpd": True}}}, "pretrain.runs.slpd", "found True"),
        ({"pretrain": {"runs": {"patch": {}}}}, "pretrain.runs", "'patch'"),
        ({"pretrain": {"runs": {"a/b": {}}}}, "pretrain.runs", "'a/b'"),
        ({"pretrain": {"runs": {"dino": False}}}, "evaluate.classifiers.dino", "remove the row by dino: null"),
        ({"pretrain": {"global_crop_size": 17}}, "pretrain.global_crop_size", "exceeds the 16"),
        ({"pretrain": {"local_crop_size": 15}}, "pretrain.local_crop_size", "larger than global_crop_size"),
        ({"pretrain": {"warmup_epochs": 101}}, "pretrain.warmup_epochs", "exceeds epochs 100"),
        ({"pretrain": {"n_heads": 5}}, "pretrain.embed_dim", "192 is not a multiple of n_heads 5"),
        (
            {"evaluate": {"classifiers": {"slpdd": ["knn"]}}},
            "evaluate.classifiers.slpdd",
            "there are mean_color, patch_tokens, mean_token, whitened_mean_token, dino, slpd",
        ),
        ({"evaluate": {"classifiers": {"patch_tokens": ["svm"]}}}, "evaluate.classifiers.patch_tokens.0", "'svm'"),
        (
            {"evaluate": {"classifiers": {"patch_tokens": ["knn", "vit_wsi"]}}},
            "evaluate.classifiers.patch_tokens",
            "remove it there",
        ),
        (
            {"evaluate": {"classifiers": {"mean_color": ["vit_wsi"]}}},
            "evaluate.classifiers.mean_color",
            "remove it there",
        ),
        (
            {"patch_encoder": {"compared": {"plain": {}}}, "evaluate": {"classifiers": {"plain": ["vit_wsi"]}}},
            "evaluate.classifiers.plain",
            "remove it there",
        ),
        ({"evaluate": {"vit_wsi_on_patches": "perhaps"}}, "evaluate.vit_wsi_on_patches", "'perhaps'"),
        (
            {"patch_encoder": {"compared": {"slpd": {}}}},
            "patch_encoder.compared.slpd",
            "names a run of pretrain.runs too",
        ),
        ({"patch_encoder": {"compared": {"patch": {}}}}, "patch_encoder.compared", "'patch'"),
        ({"patch_encoder": {"compared": {"colour": {}}}}, "patch_encoder.compared", "'colour'"),
        ({"patch_encoder": {"compared": {"a/b": {}}}}, "patch_encoder.compared", "'a/b'"),
        ({"patch_encoder": {"compared": {"plain": {"sauce": 1}}}}, "patch_encoder.compared.plain.sauce", "unknown key"),
        (
            {"patch_encoder": {"compared": {"plain": {"compared": {}}}}},
            "patch_encoder.compared.plain.compared",
            "unknown key",
        ),
        (
            {"patch_encoder": {"compared": {"hipt": {"source": "hipt"}}}},
            "patch_encoder.compared.hipt.weights",
            "give the path",
        ),
        (
            {"patch_encoder": {"compared": {"own": {"source": "dino"}}}},
            "patch_encoder.compared.own.source",
            "own encoder",
        ),
        (
            {"patch_encoder": {"compared": {"odd": {"patch_px": 250}}}},
            "regions.size_px",
            "patch_encoder.compared.odd.patch",
        ),
        ({"pretrain": {"runs": {"colour": {}}}}, "pretrain.runs", "'colour'"),
        (
            {"evaluate": {"classifiers": {"patch_tokens": ["knn", "knn"]}}},
            "evaluate.classifiers.patch_tokens",
            "names a classifier twice",
        ),
        (
            {"predict": {"sheet": "../../"}},
            "predict.sheet",
            "cannot name a folder; name the sheet yourself: {new: ../../}",
        ),
        ({"predict": {"sheet": {"a/b": "x.csv"}}}, "predict.sheet", "'a/b' cannot name a folder; use letters"),
        (
            {"predict": {"labels": {"rome": None}}},
            "predict.labels",
            "'rome' is no external cohort of predict.sheet",
        ),
        ({"predict": {"sheet": ["x.csv"]}}, "predict.sheet", "name a sheet, or several: {name: sheet}"),
        (
            {"predict": {"classifiers": {"patch_tokens": ["vit_wsi"]}}},
            "predict.classifiers.patch_tokens",
            "evaluate.classifiers does not train vit_wsi",
        ),
        (
            {"report": {"reference": "slpd/logreg"}},
            "report.reference",
            "'slpd/logreg' is no row",
        ),
        (
            {"evaluate": {"classifiers": dict.fromkeys(("mean_color", "patch_tokens", "dino", "slpd"))}},
            "evaluate.classifiers",
            "keep one row",
        ),
        ({"seed": 2**32}, "seed", "4294967296"),
        ({"pretrain": {"drop_path": 1}}, "pretrain.drop_path", "less than 1"),
        (
            {"pretrain": {"prototype_start_epoch": 100}},
            "pretrain.prototype_start_epoch",
            "leave none for the prototypes",
        ),
        ({"folds": {"n_folds": "ten"}}, "folds.n_folds", "'ten'"),
    ],
)
def test_a_mistake_is_one_line_that_begins_with_its_key(values, overlay, key, what):
    with pytest.raises(ValueError, match=r"^settings:\n") as error:
        config.load(overlaid(values, overlay))
    (line,) = str(error.value).splitlines()[1:]
    assert line.startswith(f"  {key}: ")
    assert what in line


@pytest.mark.parametrize(
    ("overlay", "keys"),
    [
        ({"seed": -1, "tissue": {"closing_um": "w"}, "sheeet": {}}, ["seed", "tissue.closing_um", "sheeet"]),
        ({"pretrain": {"n_heads": 5, "local_crop_size": 15}}, ["pretrain.embed_dim", "pretrain.local_crop_size"]),
        (
            {"pretrain": {"runs": {"slpd": {"alpha": 1, "epochs": -1}, "dino": {"depth": "six"}}}},
            ["pretrain.runs.dino.depth", "pretrain.runs.slpd.alpha", "pretrain.runs.slpd.epochs"],
        ),
        (
            {"cohort": "a b", "regions": {"size_px": 4000}, "pretrain": {"global_crop_size": 17}},
            ["cohort", "regions.size_px", "pretrain.global_crop_size"],
        ),
    ],
)
def test_all_mistakes_are_named_at_once_a_line_each(values, overlay, keys):
    with pytest.raises(ValueError, match=r"^settings:") as error:
        config.load(overlaid(values, overlay))
    lines = str(error.value).splitlines()[1:]
    assert sorted(line.split(":")[0].strip() for line in lines) == sorted(keys)


def test_a_missing_key_is_named(values):
    del values["tokens"]["batch_size"]
    with pytest.raises(ValueError, match=r"tokens\.batch_size: missing"):
        config.load(values)


def test_sections_are_immutable(values):
    with pytest.raises(ValueError, match="frozen"):
        config.load(values).tissue.closing_um = 3
