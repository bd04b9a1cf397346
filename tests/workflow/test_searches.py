"""What a search is about is known before any job runs, and what it cannot find is named."""

from types import SimpleNamespace as Wildcards

import pandas as pd
import pytest

from slpd_core import config
from slpd_core.slides import sheet
from slpd_core.workflow.searches import Searches
from tests.workflow.planted_settings import load_settings


@pytest.fixture
def find(tmp_path):
    """The search for some slides of a cohort a, b, 101 and an external cohort with r, and files in a folder."""
    for name in ("a.svs", "x.svs", "y.ome.zarr.zip", "r.tif", "101.tif"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    for name in ("a.svs", "x.svs"):
        (tmp_path / "below" / name).touch()

    def make(*slides, external="rome", **sections) -> Searches:
        settings = load_settings(search={"slides": [*slides]}, **sections)
        cohort = pd.DataFrame(
            {"slide_id": ["a", "b", "größe", "101"], "path": [str(tmp_path / "a.svs"), "b", "g", "1"]}
        )
        other = pd.DataFrame({"slide_id": ["r"], "path": [str(tmp_path / "r.tif")]})
        return Searches(settings, cohort, {external: other})

    return make


def test_slides_are_named_by_id_or_file(find, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    search = find("b", "gro\u0308ße", 101, "a.svs", "~/x.svs", "y.ome.zarr.zip", "b", str(tmp_path / "x.svs"), "r")
    assert search.queries == ["b", "größe", "101", "a", "x", "y", "r"]
    assert search.new_slides == {"search": [str(tmp_path / "x.svs"), "y.ome.zarr.zip"]}
    assert [*sheet.read_external(search.new_slides)["search"]["slide_id"]] == ["x", "y"]
    of_run = Wildcards(region_encoder="slpd")
    folders = [f"results/cohort/predict/{name}" for name in ("search", "rome")]
    assert search.query_ledgers(of_run) == [f"{folder}/ledger.parquet" for folder in folders]
    assert search.query_embeds(of_run) == [f"{folder}/embed/slpd.parquet" for folder in folders]
    assert search.slide_paths(of_run)["y"] == "y.ome.zarr.zip"


def test_slides_of_the_cohort_need_no_other_table(find):
    search = find("a", "b")
    assert search.query_ledgers(None) == search.query_embeds(Wildcards(region_encoder="slpd")) == []
    assert search.new_slides == {}


@pytest.mark.parametrize(
    ("slides", "what"),
    [
        (["grösse"], r"search\.slides: 'grösse' is no slide of the cohort and no file; did you mean größe\?"),
        (["gone.svs"], "'gone.svs' is no slide of the cohort and no file; name a slide of the sheet, or a file"),
        (["below/a.svs"], r"below/a\.svs has the name of slide a \(.*a\.svs\); rename the file"),
        (["x.svs", "below/x.svs"], r"below/x\.svs has the name of slide x \(x\.svs\); rename the file"),
    ],
)
def test_what_names_no_slide_is_refused(find, tmp_path, monkeypatch, slides, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=what):
        find(*slides)


def test_new_slides_keep_their_name_for_themselves(find, tmp_path):
    with pytest.raises(ValueError, match=r"predict\.sheet\.search: the new slides of search\.slides go by this name"):
        find(str(tmp_path / "x.svs"), external="search")
    assert find("a", external="search").queries == ["a"]


@pytest.mark.parametrize(
    ("sections", "page"),
    [
        ({}, "slpd"),
        ({"report": {"reference": "dino/knn"}}, "dino"),
        ({"report": {"reference": "patch_tokens/knn"}}, "slpd"),
        ({"pretrain": {"runs": {"dino": {}, "slpd": {"train_on": "train_fold"}}}}, "slpd.fold0"),
    ],
)
def test_the_run_is_that_of_the_reference_row(find, sections, page):
    assert find("a", **sections).targets(None) == f"results/cohort/search/{page}/similar_slides.html"


def test_nothing_to_search_for_is_said(find):
    with pytest.raises(ValueError, match=r"search\.slides: none is named; .*--config search="):
        find().targets(None)


def test_the_index_depends_on_what_prototypes_do(find):
    section = find("a").index_section(Wildcards(region_encoder="slpd.fold3"))
    assert section == {"n_prototypes": 4, "kmeans_restarts": 5, "kmeans_iterations": 10, "epochs": 100}


@pytest.mark.parametrize(("slides", "read"), [("a", ["a"]), (7, ["7"]), (None, []), ([1, "b"], ["1", "b"])])
def test_one_slide_and_numbers_are_taken(slides, read):
    assert load_settings(search={"slides": slides}).search.slides == read


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"run": "slpdd"}, r"search\.run: 'slpdd' is no run of pretrain\.runs \(dino, slpd\); correct the name"),
        ({"k": 0}, r"search\.k: .*greater than 0"),
        ({"slides": [["a"]]}, r"search\.slides"),
        ({"slides": [True]}, r"search\.slides"),
    ],
)
def test_settings_that_do_not_fit_are_refused(section, what):
    with pytest.raises(ValueError, match=what):
        load_settings(search=section)


def test_without_a_run_nothing_is_compared():
    settings = load_settings(
        search={"slides": ["a"]},
        pretrain={"runs": {}},
        evaluate={"classifiers": {"mean_color": ["knn"]}},
    )
    assert isinstance(settings, config.Config)
    cohort = pd.DataFrame({"slide_id": ["a"], "path": ["a.svs"]})
    with pytest.raises(ValueError, match=r"add one to pretrain\.runs"):
        Searches(settings, cohort, {}).targets(None)
