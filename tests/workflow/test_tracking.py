"""How changes of files are seen, and that what is not declared is not compared."""

import inspect
import os
import re
from pathlib import Path
from types import SimpleNamespace as Wildcards

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.workflow import messages, tracking
from slpd_core.workflow.slides import SlideFiles
from slpd_core.workflow.versions import stage_version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(settings, tmp_path):
    """Slides a and b of a cohort and a new slide n, b with an mpp; a alone has an outline."""

    def make(planning: bool = True, failures=None, **tissue) -> SlideFiles:
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / "A.geojson").write_text("{}")
        (tmp_path / "masks" / "notes.txt").touch()
        rows = [{"slide_id": slide, "path": str(tmp_path / f"{slide}.svs"), "mpp": np.nan} for slide in "abn"]
        rows[1]["mpp"] = 0.5
        for index, row in enumerate(rows):
            if not Path(row["path"]).exists():
                Path(row["path"]).write_bytes(bytes(1000 * (index + 1)))
        tissue = settings.tissue.model_copy(update={"masks_dir": str(tmp_path / "masks")} | tissue)
        own, sheet = settings.model_copy(update={"tissue": tissue}), pd.DataFrame(rows)
        return SlideFiles(own, sheet[:2], {"new": sheet[2:]}, failures or {}, planning=planning)

    return make


def test_weights_of_a_network_are_known_by_size_and_date_where_there_is_no_outline(files, tmp_path):
    assert files().outline_state(Wildcards(slide="b")) is None
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    segmented = files(method="hest", weights=str(weights))
    assert segmented.outline_state(Wildcards(slide="b")) == tracking.file_state(weights)
    assert segmented.outline_state(Wildcards(slide="a")) == tracking.file_state(tmp_path / "masks" / "A.geojson")


def test_a_location_is_a_function_of_threads_and_so_not_compared():
    locate = tracking.untracked("slides.csv")
    assert {*inspect.signature(locate).parameters} == {"wildcards", "threads"}
    assert locate(Wildcards(), 1) == "slides.csv"
    assert tracking.untracked(lambda wildcards: wildcards.slide)(Wildcards(slide="a"), 1) == "a"
    assert tracking.untracked(None)(Wildcards(), 1) is None


def test_each_undeclared_location_has_its_reason():
    """Parameters of all rules that locate files which are no inputs, and no others."""
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    blocks = re.findall(r"^    params:\n((?:        .*\n)+)", text, re.MULTILINE)
    parameters = re.findall(r"^        (\w+)=(.+)", "".join(blocks), re.MULTILINE)
    locations = r"(str\()?(untracked\(|PATHS\.|RESULTS\b|ROWS\.(tokens_dir|result_tables))"
    assert {name for name, value in parameters if re.match(locations, value)} == {*tracking.UNDECLARED}
    assert all(re.fullmatch(r"[^.].*\.", reason) for reason in tracking.UNDECLARED.values())


def test_each_file_is_either_an_input_or_known_by_its_size_and_date(tmp_path):
    paths = [tmp_path / name for name in ("plain.pt", "a{b}.pt", "a<b>.pt")]
    for path in paths:
        path.write_bytes(b"12")
        os.utime(path, ns=(7, 7))
    names = [*map(str, paths)]
    assert tracking.trackable(names) == names[:1]
    assert tracking.file_states(names) == ["2 bytes of 7"] * 2
    with pytest.raises(FileNotFoundError):
        tracking.file_states([str(tmp_path / "{gone}")])


@pytest.mark.parametrize("planning", [True, False])
def test_a_slide_is_known_by_what_it_is_and_not_by_where_it_lies(files, planning, tmp_path):
    before = files(planning).state(Wildcards(slide="a"))
    assert before == files(not planning).state(Wildcards(slide="a"))
    assert str(tmp_path) not in before
    assert files(planning, {"a": 2}).state(Wildcards(slide="a")) == f"{before}; not read 2 time(s)"
    (tmp_path / "a.svs").write_bytes(bytes(1001))
    assert files(planning).state(Wildcards(slide="a")) != before
    assert files(planning).gigabytes(Wildcards(slide="a")) == 1001 / 1e9


def test_a_slide_has_the_path_and_mpp_of_its_sheet(files, tmp_path):
    slides = files()
    assert (slides.cohort, slides.external) == (["a", "b"], {"new": ["n"]})
    assert slides.external_ids(Wildcards(external="new")) == ["n"]
    assert slides.path(Wildcards(slide="n")) == str(tmp_path / "n.svs")
    assert [slides.mpp(Wildcards(slide=slide)) for slide in "ab"] == [None, 0.5]
    assert slides.cohort_paths(Wildcards()) == {slide: str(tmp_path / f"{slide}.svs") for slide in "ab"}


@pytest.mark.parametrize("planning", [True, False])
def test_a_slide_has_its_outline_or_none(files, planning, tmp_path):
    slides = files(planning)
    outline = tmp_path / "masks" / "A.geojson"
    assert slides.outline_path(Wildcards(slide="a")) == outline
    assert slides.outline_state(Wildcards(slide="a")) == tracking.file_state(outline)
    assert slides.outline_section(Wildcards(slide="a")) == slides.settings.tissue.outline.model_dump()
    assert slides.outline_path(Wildcards(slide="b")) is None
    assert slides.outline_state(Wildcards(slide="b")) is slides.outline_section(Wildcards(slide="b")) is None
    assert slides.unmatched_outlines(Wildcards()) == ["notes.txt"]


def test_outlines_are_counted_before_a_run(files, capsys):
    messages.report_outlines(files())
    assert capsys.readouterr().err == "tissue.masks_dir: 1 of 3 slides have an outline; of no slide: notes.txt\n"


def test_a_date_is_changed_only_where_it_lies_ahead_and_never_in_silence(tmp_path, capsys):
    past, ahead = tmp_path / "past.h5", tmp_path / "stage" / "ahead.h5"
    ahead.parent.mkdir()
    for path, date in ((past, 1e9), (ahead, 1e11)):
        path.touch()
        os.utime(path, (date, date))
    messages.clamp_future_mtimes(tmp_path)
    assert past.stat().st_mtime == 1e9
    assert ahead.stat().st_mtime < 1e11
    assert "1 file(s) were dated in the future and are dated now: stage/ahead.h5" in capsys.readouterr().err
    messages.clamp_future_mtimes(tmp_path)
    assert capsys.readouterr().err == ""


def test_remarks_of_a_run_are_said_at_the_end_and_a_damaged_file_is_passed_over(tmp_path, capsys):
    paths = CohortPaths(tmp_path)
    paths.prototypes("broken").parent.mkdir(parents=True)
    paths.prototypes("broken").write_bytes(b"no HDF5")
    remarks, meta = {"remarks": "one\ntwo"}, artifacts.provenance("pretrain", 1, {})
    artifacts.write_arrays(paths.prototypes("slpd"), {"x": np.zeros(1, np.float32)}, remarks, meta)
    messages.report_run_remarks(paths, ["gone", "broken", "slpd"])
    messages.report_excluded(paths, ["new"])
    assert capsys.readouterr().err == "pretrain slpd: one\npretrain slpd: two\n"


@pytest.mark.parametrize("module", ["slides/tokens", "pretraining/pretrain", "report/report"])
def test_a_version_is_read_without_an_import(module):
    text = (ROOT / "slpd_core" / f"{module}.py").read_text()
    assert f"\nVERSION = {stage_version(module)}\n" in text


def test_a_module_without_a_version_is_named():
    with pytest.raises(ValueError, match=r"slpd_core/slides/ink\.py: no line VERSION"):
        stage_version("slides/ink")


def test_the_patch_of_snakemake_is_tried_with_the_release_of_the_lock():
    guard = re.search(r'version\("snakemake"\)\.startswith\("([\d.]+)"\)', (ROOT / "rules" / "common.smk").read_text())
    locked = re.search(r"^snakemake==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked[1].startswith(guard[1])
