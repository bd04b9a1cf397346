"""An export reads what is there, builds what a format needs, and encodes nothing again."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace as Namespace

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.exports import Exports
from slpd_core.workflow.rows import Rows
from slpd_core.workflow.slides import SlideFiles
from tests.export.readers import read_clam, read_h5ad, read_rows, read_trident_coords
from tests.workflow.planted_settings import load_settings

EVERY = {"formats": ["trident", "clam", "stamp", "slide2vec", "hs2p", "torchmil", "h5ad", "qupath", "huggingface"]}


@pytest.fixture
def exports(tmp_path, monkeypatch):
    """The files of an export of slides a and b, without Snakemake."""
    monkeypatch.chdir(tmp_path)

    def make(paths=("one/a.svs", "one/b.svs"), targets=("export",), compared=None, **section) -> Exports:
        settings = load_settings(export=section, patch_encoder={"compared": compared or {}})
        sheet = pd.DataFrame({"slide_id": ["a", "b"], "path": paths, "mpp": np.nan})
        slides = SlideFiles(settings, sheet, {}, {}, planning=False)
        encoders = Encoders(settings, ["a", "b"], ["label"])
        rows = Rows(settings, encoders, {"label": make_endpoint("classification")})
        return Exports(settings, slides, encoders, rows, Namespace(dag_settings=Namespace(targets=targets)))

    return make


def test_corners_need_no_tokens_and_features_that_are_there_are_taken(exports):
    a = Namespace(slide="a")
    before = exports(formats=["trident"])
    assert (before.tokens(a), before.embeds(a), before.tasks) == ([], [], [])
    assert before.regions(a) == "results/cohort/regions/a.h5"
    for name in ("tokens/a.h5", "embed/slpd.parquet"):
        path = Path("results/cohort", name)
        path.parent.mkdir(parents=True)
        path.touch()
    assert before.tokens(a) == ["results/cohort/tokens/a.h5"]
    assert before.tokens(Namespace(slide="b")) == []
    assert before.embeds(a) == ["results/cohort/embed/slpd.parquet"]
    assert before.regions(a) == "results/cohort/encoded/a.h5"
    patches = exports(formats=["trident", "hs2p"], what=["patches"])
    assert patches.embeds(a) == []


def test_a_format_of_features_needs_them(exports):
    a = Namespace(slide="a")
    both = exports(formats=["trident", "clam"])
    assert both.tokens(a) == ["results/cohort/tokens/a.h5"]
    assert both.embeds(a) == ["results/cohort/embed/dino.parquet", "results/cohort/embed/slpd.parquet"]
    assert both.tasks == ["label"]
    one = exports(formats=["clam"], what=["regions"], runs=["slpd"])
    assert (one.tokens(a), one.embeds(a)) == ([], ["results/cohort/embed/slpd.parquet"])
    assert one.targets(a) == ["results/cohort/export/clam/exported.csv"]


def test_tokens_of_compared_encoders_are_exported_if_they_are_named(exports):
    a, plain = Namespace(slide="a"), ["results/cohort/compared/plain/tokens/a.h5"]
    assert exports(formats=["clam"], compared={"plain": {}}).compared_tokens(a) == []
    named = {"compared": {"plain": {}, "other": {}}, "encoders": ["plain"]}
    assert exports(formats=["clam"], **named).compared_tokens(a) == plain
    assert exports(formats=["clam"], what=["regions"], **named).compared_tokens(a) == []
    assert exports(formats=["trident"], **named).compared_tokens(a) == []  # it has corners without them
    touch("compared/plain/tokens/a.h5")
    trident = exports(formats=["trident"], **named)
    assert (trident.compared_tokens(a), trident.compared_tokens(Namespace(slide="b"))) == (plain, [])
    assert trident.regions(a) == "results/cohort/regions/a.h5"  # the cohort's own tokens are not there


def test_an_export_without_compared_encoders_is_recorded_as_before():
    assert "encoders" not in load_settings().export.of_slides.model_dump()
    named = load_settings(patch_encoder={"compared": {"plain": {}}}, export={"encoders": ["plain"]})
    assert named.export.of_slides.model_dump()["encoders"] == ["plain"]


def test_a_format_per_run_has_a_file_per_region_encoder_and_needs_no_tokens(exports):
    of_runs = exports(formats=["h5ad", "trident"])
    table = "results/cohort/export/trident/exported.csv"
    files = [f"results/cohort/export/h5ad/{run}.h5ad" for run in ("dino", "slpd")]
    assert of_runs.targets(Namespace()) == [table, *files]
    assert of_runs.tokens(Namespace(slide="a")) == []


def touch(*names: str) -> list[str]:
    """Make files of the cohort that nothing reads; returns their paths."""
    paths = [Path("results/cohort", name) for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [*map(str, paths)]


def test_attention_is_of_rows_that_have_it_by_run(exports):
    slpd, fold = Namespace(region_encoder="slpd"), Namespace(region_encoder="slpd.fold1")
    before = exports(formats=["h5ad"])
    assert (before.attention(slpd), before.attention(fold)) == ([], [])
    attention = touch("attention/label/slpd/vit_wsi.parquet")
    after = exports(formats=["h5ad"])
    assert (after.attention(slpd), after.attention(fold)) == (attention, attention)
    assert after.attention(Namespace(region_encoder="dino")) == []
    assert before.attention(slpd) == []  # a plan does not change its mind


def test_qupath_takes_what_rows_have_of_all_folds_and_needs_no_tokens(exports):
    a, of_slides = Namespace(slide="a"), exports(formats=["qupath"])
    assert (of_slides.tokens(a), of_slides.attention(a), of_slides.predictions(a)) == ([], [], [])
    assert of_slides.embeds(a) == [f"results/cohort/embed/{run}.parquet" for run in ("dino", "slpd")]
    assert of_slides.prototypes(a) == [f"results/cohort/pretrain/{run}/prototypes.h5" for run in ("dino", "slpd")]
    attention = touch("attention/label/slpd/vit_wsi.parquet")
    touch(*(f"evaluate/label/patch_tokens/mil/fold{fold}.parquet" for fold in range(2)))
    touch("evaluate/label/dino/knn/fold0.parquet")  # one of two folds
    predictions = touch(*(f"evaluate/label/slpd/knn/fold{fold}.parquet" for fold in range(2)))
    of_slides = exports(formats=["qupath"])
    assert (of_slides.attention(a), of_slides.predictions(a)) == (attention, predictions)
    others = exports(formats=["clam", "h5ad"])
    assert (others.prototypes(a), others.attention(a), others.predictions(a)) == ([], [], [])


@pytest.mark.parametrize(("target", "waits"), [("all", True), ("evaluation", True), ("pretraining", False)])
def test_an_export_beside_the_evaluation_waits_for_it(exports, target, waits):
    a, both = Namespace(slide="a"), exports(formats=["qupath"], targets=["export", target])
    paths = [f"results/cohort/attention/label/{run}/vit_wsi.parquet" for run in ("dino", "slpd")]
    assert both.attention(a) == (paths if waits else [])
    assert both.attention(Namespace(region_encoder="slpd")) == (paths[1:] if waits else [])
    rows = [row for row in both.rows.evaluated if row[1] in ("dino", "slpd")]
    assert both.predictions(a) == [str(both.paths.predictions(*row, i)) for row in rows for i in range(2) if waits]


def test_an_export_without_a_format_or_of_nothing_says_what_to_name(exports):
    with pytest.raises(ValueError, match=r"export\.formats: none is named; there are trident, clam, .*--config"):
        exports().targets(Namespace())
    with pytest.raises(ValueError, match=r"export\.what: regions have no embeddings without a run"):
        exports(formats=["clam"], what=["regions"], runs=[]).targets(Namespace())
    with pytest.raises(ValueError, match=r"name patches, or a run"):
        exports(formats=["h5ad"], runs=[]).targets(Namespace())


@pytest.mark.parametrize(
    ("paths", "shared"), [(("one/x.svs", "two/x.svs"), "x"), (("x.ome.tif", "x.ome.svs"), "x.ome")]
)
def test_two_slides_of_one_stem_are_refused_by_trident_alone(exports, paths, shared):
    with pytest.raises(ValueError, match=rf"a \({paths[0]}\) and b \({paths[1]}\) are both called {shared};"):
        exports(paths=paths, formats=["trident"]).targets(Namespace())
    assert exports(paths=paths, formats=["clam"]).targets(Namespace())


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"formats": ["clam", "clam"]}, r"export\.formats: 'clam' is listed twice; remove one"),
        ({"runs": ["gone"]}, r"export\.runs: 'gone' is no run of pretrain\.runs \(dino, slpd\); correct the name"),
        ({"encoders": ["gone"]}, r"export\.encoders: 'gone' is no encoder of patch_encoder\.compared \(none\);"),
        ({"encoders": ["x", "x"]}, r"export\.encoders: 'x' is listed twice; remove one"),
        (
            {"formats": ["h5ad"], "what": ["patches"]},
            r"export\.formats: h5ad holds regions alone; add them",
        ),
        ({"what": []}, r"export\.what: .*at least 1"),
        ({"formats": ["zarr"]}, r"export\.formats\.0: .*'trident', 'clam'"),
    ],
)
def test_a_wrong_setting_is_one_line(section, line):
    with pytest.raises(ValueError, match=line):
        load_settings(export=section)


def test_an_export_trains_nothing_unless_the_evaluation_is_a_target_too(copied, snakemake):
    for part in ("evaluate", "attention"):
        shutil.rmtree(copied / "results" / "tiny" / part)
    overlay = {"export": {"formats": ["qupath", "h5ad"]}}
    alone = snakemake(copied, "-n", "export", overlay=overlay)
    assert alone.jobs == {"export_slide": 6, "export_tables": 1, "h5ad": 2, "export": 1}
    beside = snakemake(copied, "-n", "export", "all", overlay=overlay)
    assert beside.jobs.items() >= (alone.jobs | {"evaluate_folds": 6, "attention": 2}).items()


def test_corners_of_patches_are_exported_before_there_are_tokens(copied, snakemake):
    folder = copied
    for part in ("tokens", "encoded", "ledger", "embed"):
        shutil.rmtree(folder / "results" / "tiny" / part)
    overlay = {"export": {"formats": ["trident"], "what": ["patches"]}}
    done = snakemake(folder, "export", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.jobs == {"export_slide": 6, "export_tables": 1, "export": 1}
    results = folder / "results" / "tiny"
    bag = read_trident_coords(results / "export" / "trident", "fine-1.tiff", 20, 64)
    assert bag.corners.shape == (12 * 16, 2)
    assert snakemake(folder, "-n", "export", overlay=overlay).jobs == {}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, finished, snakemake):
    """A copy of the finished cohort, exported to every format, and the run."""
    folder = tmp_path_factory.mktemp("exported") / "cohort"
    shutil.copytree(finished[0], folder, symlinks=True, copy_function=shutil.copy2)
    done = snakemake(folder, "export", overlay={"export": EVERY})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_a_finished_cohort_is_exported_by_one_job_per_slide(exported, snakemake):
    folder, done = exported
    assert done.jobs == {"export_slide": 6, "export_tables": 1, "h5ad": 2, "huggingface": 2, "export": 1}
    assert "torn has no features, quarantined" in done.stdout + done.stderr
    results = folder / "results" / "tiny"
    tokens, _ = artifacts.read_tokens(results / "tokens" / "größe-1.h5")
    bag = read_clam(results / "export" / "clam" / "patch_tokens", "größe-1")
    np.testing.assert_array_equal(bag.vectors, tokens.tokens.reshape(-1, 64).astype(np.float32))
    assert len(read_clam(results / "export" / "clam" / "slpd", "größe-1").vectors) == 12
    tiles = json.loads((results / "export" / "qupath" / "slpd" / "größe-1.geojson").read_text())["features"]
    measured = {"tissue_fraction", "attention_label_vit_wsi"} | {f"p_{x}_label_vit_wsi" for x in ("coarse", "größer")}
    assert measured <= tiles[0]["properties"]["measurements"].keys()
    assert read_h5ad(results / "export" / "h5ad" / "slpd.h5ad")["X"].shape == (4 * 12, 24)
    assert (results / "export" / "huggingface" / "dino" / "README.md").exists()
    for name in [name for name in EVERY["formats"] if name not in ("h5ad", "huggingface")]:
        rows = read_rows(results / "export" / name / "exported.csv")
        assert [row["status"] for row in rows].count("ok") == 4
    labels = {row["slide_id"]: row["label"] for row in read_rows(results / "export" / "clam" / "label.csv")}
    assert labels == {"coarse-0": "coarse", "größe-1": "coarse", "fine-0": "größer", "fine-1": "größer"}
    assert snakemake(folder, "-n", "export", "all", overlay={"export": EVERY}).jobs == {}


def test_what_was_exported_comes_back_as_it_was(exported, snakemake):
    """Tokens by TRIDENT's files of features, regions by hs2p's coordinates."""
    folder, _ = exported
    results = folder / "results" / "tiny"
    theirs = results / "export" / "trident" / "20x_64px_0px_overlap" / "features_patch_tokens"
    assert len([*theirs.glob("*.h5")]) == 4
    (theirs / "fine-0.h5").unlink()
    overlay = {
        "patch_encoder": {"compared": {"theirs": {"source": "features", "path": str(theirs), "format": "trident"}}},
        "evaluate": {"classifiers": {"theirs": ["dsmil"]}},
    }
    done = snakemake(folder, "--until", "compared_ledger", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    for slide in ("coarse-0", "größe-1", "fine-1"):
        (ours, _), (imported, meta) = (
            artifacts.read_tokens(results / part / "tokens" / f"{slide}.h5") for part in ("", "compared/theirs")
        )
        np.testing.assert_array_equal(imported.tokens, ours.tokens)
        assert meta["encoder_source"] == "features"
    ledger, _ = artifacts.read_table(results / "compared" / "theirs" / "ledger.parquet", "ledger")
    reasons = ledger.set_index("slide_id")["reason"]
    assert reasons["fine-0"].startswith("fine-0: no file of features in patch_encoder.path")
    assert snakemake(folder, "-n", "--until", "compared_ledger", overlay=overlay).jobs == {}

    coordinates = results / "export" / "hs2p" / "regions"
    ours, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    listed = {"regions": {"coordinates": str(coordinates), "format": "hs2p"}}
    done = snakemake(folder, "results/tiny/regions/fine-1.h5", overlay=listed)
    assert done.returncode == 0, done.stdout + done.stderr
    imported, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    order = np.lexsort(ours.coords.T[::-1])
    np.testing.assert_array_equal(imported.coords, ours.coords[order])
    np.testing.assert_array_equal(imported.tissue_fraction, ours.tissue_fraction[order])
    assert imported.slide == ours.slide
