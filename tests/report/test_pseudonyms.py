"""With pseudonyms no file but the key names a slide, a patient or a file; the numbers are those of the other report."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from slpd_core import artifacts
from slpd_core.report import pseudonyms
from tests.report.planted_endpoints import GRADES, VALUES
from tests.report.test_report import ROWS, page_of, write_without_figures

FILE = "/data/Ward 7/Doe, John.svs"
LEFT_OUT = [("lost", artifacts.QUARANTINED, f"lost: {FILE} is torn"), ("bare", artifacts.EMPTY, "bare: no tissue")]
REMARKS = {"s0-1": f"9 of 10 px of {FILE} are tissue.", "s0-2": "The same slide, byte for byte: s0-2, s0-3."}
ON_FOLDS = [("patient on both sides", "s0-4", 0), ("never tested", "s1-1", ""), ("label not tested", "x", 1)]
ON_FOLDS += [("quarantined", "lost", "")]


@pytest.fixture(scope="module")
def reports(tmp_path_factory, settings):
    """The folders of a report without and with pseudonyms, of the same artifacts."""

    def write(pseudonyms):
        return write_without_figures(
            tmp_path_factory.mktemp("report"),
            settings,
            ROWS | {("dino", "vit_wsi"): 0.5},
            tasks={"label": "y", "grade": GRADES, "tmb": VALUES},
            left_out=LEFT_OUT,
            slide_remarks=REMARKS,
            remarks=ON_FOLDS,
            pseudonyms=pseudonyms,
        )

    return write(False), write(True)


def read_texts(folder):
    """The text of every file of a report by its name; of a table all cells, of other files their bytes."""
    texts = {}
    for path in sorted(folder.rglob("*.*")):
        content = path.read_bytes().decode("latin-1")
        texts[path.relative_to(folder).as_posix()] = content
        if path.suffix == ".parquet":
            texts[f"{path.name}, read"] = pd.read_parquet(path).to_csv()
    return texts


def names_of(key):
    return ({*key["slide_id"], *key["patient_id"]} - {"p"}) | {FILE, "Doe, John", "Ward 7", ".svs", "byte for byte"}


def test_no_name_is_in_any_file_but_the_key(reports):
    plain, shared = map(read_texts, reports)
    key = pd.read_csv(reports[1] / "pseudonyms.csv")
    assert len(key) == 32
    assert {*shared} == {*plain, "pseudonyms.csv"}
    for file, text in shared.items():
        found = [name for name in names_of(key) if name in text or name in file]
        assert not found or file == "pseudonyms.csv", (file, found)
    for file in ("index.html", "label/slides.html", "label/predictions.csv"):  # the same search finds them there
        assert "s0-1" in plain[file]
    assert "Doe, John" in plain["index.html"]


def test_the_key_says_who_is_who(reports):
    key = pd.read_csv(reports[1] / "pseudonyms.csv")
    assert key["slide"].is_unique
    assert key["slide"].tolist() == [f"slide-{number:02d}" for number in range(1, 33)]
    assert key["slide_id"].tolist() != sorted(key["slide_id"])  # a random order
    assert key.set_index("slide_id").loc["lost", "reason"] == LEFT_OUT[0][2]
    assert key.set_index("slide_id").loc["s0-1", "remarks"] == REMARKS["s0-1"]
    slides, patients = (
        dict(zip(key[own], key[shown], strict=True))
        for own, shown in (("slide_id", "slide"), ("patient_id", "patient"))
    )
    for task in ("label", "grade", "tmb"):
        plain, shared = (pd.read_csv(folder / task / "predictions.csv") for folder in reports)
        plain = plain.assign(slide_id=plain["slide_id"].map(slides), patient_id=plain["patient_id"].map(patients))
        order = ["features", "classifier", "fold", "slide_id"]
        pd.testing.assert_frame_equal(
            plain.sort_values(order, ignore_index=True), shared.sort_values(order, ignore_index=True)
        )
        pd.testing.assert_frame_equal(*(pd.read_csv(folder / task / "table.csv") for folder in reports))


def test_the_page_still_says_what_it_can(reports):
    page = page_of(reports[1])
    text = " ".join(page.text.split())
    assert "30 took part" in text
    assert "Slides and patients are numbers here" in text
    assert "1 slide could not be used, 1 slide had no region" in text
    assert text.count(f"(quarantined): {pseudonyms.NOT_SHOWN}") == 1
    assert "patient on both sides, 1 in 1 fold" in text
    assert "label not tested, 1 in 1 fold" in text
    assert {"attention", "prototypes"} <= page.ids
    assert {link for link in page.references if not link.startswith(("#", "data:"))} == {
        *("run.json", "methods.md", "methods.bib", "label/slides.html", "grade/slides.html", "tmb/slides.html")
    }


def test_the_order_of_slides_in_a_file_is_that_of_their_numbers(reports):
    for _, of in pd.read_csv(reports[1] / "label" / "predictions.csv").groupby(["features", "classifier", "fold"]):
        assert of["slide_id"].is_monotonic_increasing


def test_numbers_are_a_permutation_that_the_seed_draws():
    ledger = pd.DataFrame({"slide_id": [*"dcba"], "patient_id": [*"yyxx"]})
    names = pseudonyms.number_names(ledger, seed=1)
    assert sorted(names.slides.values()) == ["slide-1", "slide-2", "slide-3", "slide-4"]
    assert sorted(names.patients.values()) == ["patient-1", "patient-2"]
    again = pseudonyms.number_names(ledger.iloc[::-1], seed=1)
    assert (names.slides, names.patients) == (again.slides, again.patients)
    renamed = names.rename(ledger.assign(value=range(4)))
    assert renamed["slide_id"].is_monotonic_increasing
    back = {shown: own for own, shown in names.slides.items()}
    assert [ledger["slide_id"].tolist().index(back[name]) for name in renamed["slide_id"]] == renamed["value"].tolist()
    with pytest.raises(KeyError):
        names.rename(pd.DataFrame({"slide_id": ["unknown"]}))
    same = pseudonyms.keep_names(ledger)
    assert same.rename(ledger) is ledger
    assert replace(same, are_numbers=True).rename(ledger)["slide_id"].tolist() == [*"abcd"]


def test_a_picture_with_names_in_it_is_refused(tmp_path):
    named, numbered = tmp_path / "dino.png", tmp_path / "slpd.jpg"
    artifacts.write_picture(named, Image.new("RGB", (8, 8)))
    artifacts.write_picture(numbered, Image.new("RGB", (8, 8)), meta=artifacts.NUMBERED)
    pseudonyms.require_numbers([numbered])
    with pytest.raises(
        ValueError, match=r"dino\.png: shows slides by their own names, .*; delete the file and rebuild"
    ):
        pseudonyms.require_numbers([numbered, named])


def test_texts_that_can_be_paths_are_left_out_of_settings():
    settings = {"splits_dir": "/data/doe", "group_by": "patient", "n": [1, 0.5, None, True, "Doe.svs", r"C:\doe"]}
    hidden = pseudonyms.hide_texts(settings | {"a b": {"weights": "vit_s"}})
    assert hidden["group_by"] == "patient"
    assert hidden["n"][:4] == [1, 0.5, None, True]
    assert "vit_s" in json.dumps(hidden)
    assert not [word for word in ("data", "oe", "a b") if word in json.dumps(hidden).lower()]
