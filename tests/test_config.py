"""config.yaml is whole and each way to get it wrong ends in a line that names the key."""

from pathlib import Path

import pytest
import yaml

from slpd_core import config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def values():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def overlaid(values, overlay):
    """The deep merge Snakemake does with --configfile."""
    for key, value in overlay.items():
        values[key] = overlaid(dict(values[key]), value) if isinstance(values.get(key), dict) else value
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
    assert config.load(overlaid(values, overlay)).cohort == path.stem


def test_numbers_that_arrive_as_text_are_numbers(values):
    values["pretrain"]["base_lr"] = "5e-4"
    values["seed"] = "7"
    settings = config.load(values)
    assert settings.pretrain.base_lr == 5e-4
    assert settings.seed == 7


@pytest.mark.parametrize(
    ("overlay", "key", "what"),
    [
        ({"tisue": {}}, "tisue", "unknown key"),
        ({"tissue": {"closing": 3}}, "tissue.closing", "unknown key"),
        ({"seed": -1}, "seed", "-1"),
        ({"cohort": "../up"}, "cohort", "'../up'"),
        ({"regions": {"size_px": 4000}}, "regions.size_px", "multiple of patch_encoder.patch_px 256"),
        ({"regions": {"edge": "wrap"}}, "regions.edge", "'wrap'"),
        ({"patch_encoder": {"source": "timm"}}, "patch_encoder", "weights is null"),
        ({"pretrain": {"runs": {"slpd": {"alpha": 1}}}}, "runs.slpd.alpha", "unknown key"),
        ({"pretrain": {"runs": {"patch": {}}}}, "pretrain", "'patch'"),
        ({"pretrain": {"runs": {"a/b": {}}}}, "pretrain", "'a/b'"),
        ({"pretrain": {"global_crop": 17}}, "pretrain.global_crop", "exceeds the 16"),
        ({"pretrain": {"local_crop": 15}}, "local_crop", "larger than global_crop"),
        ({"pretrain": {"n_heads": 5}}, "embed_dim 192", "multiple of n_heads 5"),
        ({"evaluate": {"rows": {"slpdd": ["knn"]}}}, "evaluate.rows", "slpdd"),
        ({"evaluate": {"rows": {"patch": ["svm"]}}}, "evaluate.rows.patch", "'svm'"),
        ({"folds": {"n_folds": "ten"}}, "folds.n_folds", "'ten'"),
    ],
)
def test_a_mistake_is_named(values, overlay, key, what):
    with pytest.raises(ValueError, match=r"^config\.yaml: ") as error:
        config.load(overlaid(values, overlay))
    assert key in str(error.value)
    assert what in str(error.value)


def test_all_mistakes_are_named_at_once(values):
    with pytest.raises(ValueError, match="seed") as error:
        config.load(overlaid(values, {"seed": -1, "tissue": {"closing_um": "wide"}, "sheeet": {}}))
    assert all(key in str(error.value) for key in ("seed", "tissue.closing_um", "sheeet"))


def test_a_missing_key_is_named(values):
    del values["tokens"]["batch_size"]
    with pytest.raises(ValueError, match=r"tokens\.batch_size: missing"):
        config.load(values)


def test_sections_are_immutable(values):
    with pytest.raises(ValueError, match="frozen"):
        config.load(values).tissue.closing_um = 3
