"""An export reads what is there, builds what a format needs, and encodes nothing again."""

from pathlib import Path
from types import SimpleNamespace as Namespace

import numpy as np
import pandas as pd
import pytest

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.exports import Exports
from slpd_core.workflow.rows import Rows
from slpd_core.workflow.slides import SlideFiles
from tests.workflow.planted_settings import load_settings


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
    of = {
        run: [f"results/cohort/attention/label/{run}/{row}.parquet" for row in ("abmil", "vit_wsi")]
        for run in ("dino", "slpd")
    }
    assert both.attention(a) == (of["dino"] + of["slpd"] if waits else [])
    assert both.attention(Namespace(region_encoder="slpd")) == (of["slpd"] if waits else [])
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
