"""The ledger says of every slide what became of it."""

import json
import logging
import re
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from shapely import box

from slpd_core import artifacts
from slpd_core.slides import ledger

META = artifacts.provenance("stage", 1, {}, "f")


@pytest.fixture
def run(tmp_path, settings):
    """Run the stage on slides given as {slide_id: (regions, status, reason, remarks ...)}; gives the ledger.

    contents: fingerprints of their bytes; without, each has its own. patients: the patient of each. known: those of the
    cohort's slides by their ids. precisions: of their tokens, fp32 by default. focus: of their regions, if measured.
    """

    def run(
        slides: dict,
        on_bad_slide: str = "quarantine",
        contents: str = "",
        patients: str = "",
        external: bool = False,
        known: dict = MappingProxyType({}),
        unmatched: tuple = (),
        precisions: dict = MappingProxyType({}),
        focus: dict = MappingProxyType({}),
    ) -> pd.DataFrame:
        patients, contents = patients or [f"p-{name}" for name in slides], contents or [*slides]
        rows = [(name, patients[number], 0.5, "") for number, name in enumerate(slides)]
        frame = pd.DataFrame(rows, columns=[*artifacts.TABLES["sheet"]])
        artifacts.write_table(tmp_path / "sheet.parquet", "sheet", frame, META)
        paths = {kind: [tmp_path / f"{name}.{kind}" for name in slides] for kind in ("tissue", "encoded")}
        for number, (name, (count, status, reason, *remarks)) in enumerate(slides.items()):
            info = artifacts.SlideInfo(name, status, reason, 8000, 6000, 0.5, "sheet", contents[number], tuple(remarks))
            polygons = (box(0, 0, 2000, 1000),) if count else ()
            artifacts.write_tissue(paths["tissue"][number], artifacts.Tissue(info, polygons), META)
            coords = np.zeros((count, 2), np.int64)
            found = artifacts.Regions(info, coords, np.ones(count, np.float32), 4096, 4096, 0.5, focus.get(name))
            meta = META | {"fingerprint": f"tokens-{name}", "precision": precisions.get(name, "fp32")}
            artifacts.write_regions(paths["encoded"][number], found, meta)
        for name, content in known.items():
            info = artifacts.SlideInfo(name, artifacts.OK, "", 8000, 6000, 0.5, "sheet", content)
            artifacts.write_tissue(tmp_path / f"{name}.known", artifacts.Tissue(info, ()), META)
        ledger.run(
            sheet_path=tmp_path / "sheet.parquet",
            tissue_paths=paths["tissue"],
            encoded_paths=paths["encoded"],
            out_path=tmp_path / "ledger.parquet",
            section=settings.ledger.model_copy(update={"on_bad_slide": on_bad_slide}),
            external=external,
            known_tissue_paths=[tmp_path / f"{name}.known" for name in known],
            unmatched=unmatched,
        )
        return artifacts.read_table(tmp_path / "ledger.parquet", "ledger")[0]

    return run


MIXED = {
    "a": (3, artifacts.OK, ""),
    "b": (0, artifacts.OK, "no tissue found"),
    "c": (0, artifacts.QUARANTINED, "c.svs: torn"),
}


def test_the_focus_of_a_slide_is_the_median_of_its_regions_where_it_is_measured(run):
    assert "focus" not in run(MIXED)
    focus = {"a": np.array([9, np.nan, 5], np.float32), "b": np.empty(0, np.float32)}
    rows = run(MIXED, focus=focus).set_index("slide_id")
    assert rows["focus"].dtype == np.float64
    assert rows["focus"].fillna(-1).to_dict() == {"a": 7, "b": -1, "c": -1}


def test_every_slide_has_its_row(run):
    rows = run(MIXED).set_index("slide_id")
    assert rows["status"].to_dict() == {"a": artifacts.OK, "b": artifacts.EMPTY, "c": artifacts.QUARANTINED}
    assert rows["regions"].to_dict() == {"a": 3, "b": 0, "c": 0}
    assert rows.loc["a", "tissue_mm2"] == pytest.approx(0.5)
    assert set(rows["tissue_source"]) == {"segmented"}
    assert rows.loc["c", "reason"] == "c.svs: torn"
    assert rows.loc["a", "fingerprint"] == "tokens-a"
    assert rows["patient_id"].tolist() == ["p-a", "p-b", "p-c"]
    assert run(MIXED, contents="121")["slide_fingerprint"].tolist() == [*"121"]


def test_a_slide_that_was_mended_makes_another_ledger(run, tmp_path):
    """Pretraining takes up a checkpoint by the ledger's fingerprint: it must tell other slides from the same."""

    def fingerprint(slides):
        run(slides)
        return artifacts.read_table(tmp_path / "ledger.parquet", "ledger")[1]["fingerprint"]

    mended = fingerprint(MIXED | {"c": (2, artifacts.OK, "")})
    assert mended == fingerprint(MIXED | {"c": (2, artifacts.OK, "")})
    assert mended != fingerprint(MIXED)


def test_slides_left_out_are_named(run, caplog):
    with caplog.at_level(logging.WARNING):
        run(MIXED)
    assert "c is quarantined: c.svs: torn" in caplog.text
    assert "b is left out: no tissue found" in caplog.text


def test_remarks_on_slides_are_kept_and_named(run, caplog):
    with caplog.at_level(logging.WARNING):
        rows = run(MIXED | {"d": (1, artifacts.OK, "", "All is tissue.", "The scale is odd.")}).set_index("slide_id")
    assert rows["remarks"].to_dict() == {"a": "", "b": "", "c": "", "d": "All is tissue. The scale is odd."}
    assert "d: All is tissue. The scale is odd." in caplog.text


def test_stop_names_the_bad_slides(run, tmp_path):
    with pytest.raises(ValueError, match=r"1 bad slide\(s\): c; repair them or set ledger.on_bad_slide"):
        run(MIXED, on_bad_slide="stop")
    assert not (tmp_path / "ledger.parquet").exists()
    assert len(run({"a": MIXED["a"], "b": MIXED["b"]}, on_bad_slide="stop")) == 2


def test_a_cohort_without_regions_stops(run):
    with pytest.raises(ValueError, match="no slide has regions, 1 of 2 are quarantined"):
        run({"b": MIXED["b"], "c": MIXED["c"]})
    assert set(run({"b": MIXED["b"], "c": MIXED["c"]}, external=True)["status"]) == {"empty", "quarantined"}


FOUR = dict.fromkeys("abcd", (1, artifacts.OK, ""))


def test_one_slide_of_two_patients_stops_the_run(run, tmp_path):
    said = "a, c are the same slide, byte for byte, of patient 'p', patient 'r'; correct the sheet"
    with pytest.raises(ValueError, match=re.escape(said)):
        run(FOUR, contents="1213", patients="pqrs")
    assert not (tmp_path / "ledger.parquet").exists()


def test_one_slide_twice_of_one_patient_is_remarked_on(run):
    remarks = run(FOUR, contents="1213", patients="pqps").set_index("slide_id")["remarks"]
    assert remarks["a"] == remarks["c"] == "The same slide, byte for byte: a, c; remove all but one from the sheet."
    assert remarks["b"] == remarks["d"] == ""


def test_what_a_sheet_of_slides_to_be_predicted_says_of_copies_is_not_looked_at(run):
    remarks = run(FOUR, contents="1213", patients=["p", "q", "", "s"], external=True)["remarks"]
    assert (remarks != "").tolist() == [True, False, True, False]


def test_slides_that_are_left_out_are_no_copies(run):
    torn = dict.fromkeys("bcd", (0, artifacts.QUARANTINED, "empty file"))
    assert (run(FOUR | torn, contents="1111")["remarks"] == "").all()


def test_slides_to_be_predicted_that_classifiers_were_trained_on_are_remarked_on(run, tmp_path, caplog):
    """What could not be read, in the cohort, is equal to nothing."""
    with caplog.at_level(logging.WARNING):
        rows = run(FOUR, contents="1234", external=True, known={"k": "3", "l": "9", "torn": ""}).set_index("slide_id")
    said = "It is k of the cohort, byte for byte, on which classifiers are trained: no test of them."
    assert rows["remarks"].to_dict() == {"a": "", "b": "", "c": said, "d": ""}
    assert f"c: {said}" in caplog.text
    leaks = artifacts.read_table(tmp_path / "ledger.parquet", "ledger")[1]["fingerprint"]
    run(FOUR, contents="1234", external=True, known={"l": "9"})
    assert leaks != artifacts.read_table(tmp_path / "ledger.parquet", "ledger")[1]["fingerprint"]


def test_outlines_of_no_slide_are_named_and_change_no_row(run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rows = run(MIXED, unmatched=("notes.txt", "old.json"))
    assert "files of tissue.masks_dir that belong to no slide: notes.txt, old.json" in caplog.text
    meta = artifacts.read_table(tmp_path / "ledger.parquet", "ledger")[1]
    assert json.loads(meta["unmatched_outlines"]) == ["notes.txt", "old.json"]
    pd.testing.assert_frame_equal(rows, run(MIXED))
    plain = artifacts.read_table(tmp_path / "ledger.parquet", "ledger")[1]
    assert plain.items() <= meta.items()
    assert "unmatched_outlines" not in plain


def test_slides_of_several_precisions_are_refused_by_name(run):
    slides = {name: (count, artifacts.OK, "") for name, count in (("a", 2), ("b", 1), ("c", 3), ("none", 0))}
    precisions = {"a": "bf16", "b": "fp32", "c": "bf16", "none": "fp32"}
    with pytest.raises(ValueError, match=r"\(bf16: a, c; fp32: b\); delete encoded/SLIDE\.h5 .* not in bf16"):
        run(slides, precisions=precisions)
    assert len(run(slides, precisions=precisions | {"b": "bf16"})) == 4
