"""A search finds what is planted, says whose slides they are, and shows matched regions side by side."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from slpd_core import artifacts, config
from slpd_core.drawing.overlays import frame_regions
from slpd_core.search import page, search, search_index
from slpd_core.wsi.region_reader import iter_region_pixels
from slpd_core.wsi.writer import write_slide

SIDE = 128  # level-0 px of a region
RED, BLUE, GREEN, BROWN = (200, 60, 60), (60, 60, 200), (60, 170, 60), (120, 80, 40)
# Slides of two kinds of regions each, painted in their colors and embedded near them; `few` has one region.
COHORT = {
    "a": [RED, RED, RED, BLUE],
    "b": [BLUE, RED, BLUE],  # the same kinds
    "c": [GREEN, BROWN, BROWN],
    "d": [RED, GREEN],
    "few": [RED],
}
PATIENTS = {"a": "p", "b": "q", "c": "p", "d": "r", "few": "s"}


@pytest.fixture
def make(tmp_path):
    """Run the stage on the planted cohort and new slides (id -> colors); gives both tables and the page."""

    def write_cohort(name, slides, patients, fingerprints):
        rows, ledger = [], []
        for slide, colors in slides.items():
            status = artifacts.OK if colors else artifacts.QUARANTINED
            pixels = np.repeat(np.repeat(np.array([colors or [RED]], np.uint8), SIDE, 0), SIDE, 1)
            pixels = pixels.reshape(SIDE, -1, 3)
            corners = np.stack([np.arange(len(colors)) * SIDE, np.zeros(len(colors), int)], axis=1)
            info = artifacts.SlideInfo(slide, status, "", SIDE * max(1, len(colors)), SIDE, 0.5, "sheet", "")
            kept = artifacts.Regions(info, corners, np.ones(len(colors), np.float32), SIDE, SIDE, 0.5)
            artifacts.write_regions(tmp_path / f"regions/{slide}.h5", kept, artifacts.provenance("regions", 1, {}))
            artifacts.write_picture(tmp_path / f"tissue/{slide}.png", Image.fromarray(pixels))
            write_slide(tmp_path / f"{slide}.tiff", pixels, 0.5)
            noise = np.random.default_rng(len(rows)).normal(0, 0.5, (len(colors), 3))
            vectors = (np.array(colors).reshape(-1, 3) - 128 + noise).astype(np.float32)
            rows += [(slide, *corner, vector) for corner, vector in zip(corners.tolist(), vectors, strict=True)]
            record = {"slide_id": slide, "patient_id": patients.get(slide, slide), "status": status}
            record |= {"reason": "" if colors else f"{slide}: torn", "regions": len(colors), "remarks": ""}
            ledger.append(record | {"slide_fingerprint": fingerprints.get(slide, f"bytes of {slide}")})
        embed = pd.DataFrame(rows, columns=["slide_id", "x", "y", "embedding"])
        meta = artifacts.provenance("embed", 1, {}, name) | {"embed_dim": "3", "ledger": ""}
        artifacts.write_table(tmp_path / f"{name}-embed.parquet", "embed", embed, meta)
        table = pd.DataFrame(ledger).reindex(columns=artifacts.TABLES["ledger"])
        artifacts.write_table(
            tmp_path / f"{name}-ledger.parquet", "ledger", table, artifacts.provenance("ledger", 1, {}, name)
        )

    def make(queries, new=None, copies=None, labels=None, missing=(), **section):
        write_cohort("cohort", COHORT, PATIENTS, {})
        write_cohort("new", new or {}, {}, {slide: f"bytes of {other}" for slide, other in (copies or {}).items()})
        options = {"n_prototypes": 2, "kmeans_restarts": 5, "kmeans_iterations": 10, "epochs": 1}
        search_index.run(
            embed_path=tmp_path / "cohort-embed.parquet",
            out_path=tmp_path / "slpd" / "index.h5",
            section=config.SearchIndexConfig(**options),
            seed=1,
        )
        for task, truths in (labels or {}).items():
            table = pd.DataFrame({"slide_id": [*truths], "patient_id": "p", "label": truths.values()})
            meta = artifacts.provenance("labels", 1, {}, "l") | {"kind": "classification", "classes": '["x", "y"]'}
            artifacts.write_table(tmp_path / f"labels/{task}.parquet", "labels", table, meta)
        for slide in missing:
            (tmp_path / f"{slide}.tiff").unlink()
        search.run(
            queries=queries,
            index_path=tmp_path / "slpd" / "index.h5",
            ledger_path=tmp_path / "cohort-ledger.parquet",
            query_ledger_paths=[tmp_path / "new-ledger.parquet"] if new else [],
            query_embed_paths=[tmp_path / "new-embed.parquet"] if new else [],
            label_paths={task: tmp_path / f"labels/{task}.parquet" for task in labels or {}},
            slide_paths={slide: tmp_path / f"{slide}.tiff" for slide in (*COHORT, *(new or {}))},
            tissue_dir=tmp_path / "tissue",
            regions_dir=tmp_path / "regions",
            similar_path=tmp_path / "similar.csv",
            matched_path=tmp_path / "matched.csv",
            page_path=tmp_path / "page.html",
            section=config.RankingConfig(**{"k": 3, "exclude_same_patient": False} | section),
            read_regions=iter_region_pixels,
        )
        tables = [pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False) for name in ("similar", "matched")]
        return *tables, (tmp_path / "page.html").read_text()

    return make


def color_of(slide, x):
    return COHORT[slide][x // SIDE]


def test_a_slide_of_the_same_kinds_is_found_first_and_its_regions_are_those_of_the_kinds(make):
    similar, matched, _ = make(["a"])
    assert similar["slide_id"].tolist() == ["b", "d", "c"]
    assert similar["rank"].tolist() == [1, 2, 3]
    assert similar["similarity"].iloc[0] == pytest.approx(1, abs=1e-3)
    assert similar["same_patient"].tolist() == [False, False, True]
    pairs = matched[matched["rank"] == 1]
    assert [color_of("a", x) for x in pairs["query_x"]] == [RED, BLUE]  # the larger prototype first
    assert [color_of("b", x) for x in pairs["slide_x"]] == [RED, BLUE]
    assert pairs["query_fraction"].tolist() == [0.75, 0.25]
    assert pairs["slide_fraction"].tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-5)
    for rank, rows in matched.groupby("rank"):
        assert rows["cosine"].mean() == pytest.approx(similar["similarity"][rank - 1], abs=1e-5)
        assert sorted(rows["slide_prototype"]) == sorted(rows["query_prototype"]) == [0, 1]


def test_slides_of_the_same_patient_are_left_out_if_asked_for(make):
    similar, *_ = make(["a", "d"], exclude_same_patient=True)
    assert similar.groupby("query")["slide_id"].apply(set).to_dict() == {"a": {"b", "d"}, "d": {"a", "b", "c"}}
    assert not similar["same_patient"].any()


def test_a_new_slide_finds_and_is_not_found(make):
    similar, matched, _ = make(["n", "c"], new={"n": [BROWN, GREEN, GREEN], "m": [GREEN, BROWN]}, k=9)
    assert similar["slide_id"][:1].tolist() == ["c"]
    assert similar.groupby("query").size().to_dict() == {"n": 4, "c": 3}
    assert not {"n", "m"} & {*similar["slide_id"]}
    assert [COHORT["c"][x // SIDE] for x in matched["slide_x"][:2]] == [GREEN, BROWN]


@pytest.mark.parametrize("excluded", [False, True])
def test_a_copy_of_a_slide_is_of_its_patient(make, excluded):
    similar, _, text = make(["n"], new={"n": COHORT["c"]}, copies={"n": "c"}, exclude_same_patient=excluded)
    of = dict(zip(similar["slide_id"], similar["same_patient"], strict=True))
    assert of == ({"b": False, "d": False} if excluded else {"c": True, "d": False, "a": True})
    assert "Its file equals that of c of the cohort, byte for byte." in text


def test_a_query_without_prototypes_says_why(make, caplog):
    similar, matched, text = make(["few", "n", "a"], new={"n": []})
    assert {*similar["query"]} == {*matched["query"]} == {"a"}
    notes = ["few: It has 1 regions, too few for 2 prototypes", "n: It could not be used: torn"]
    assert all(any(note in line for line in caplog.messages) for note in notes)
    assert all(note.partition(": ")[2] in text for note in notes)


@pytest.mark.parametrize(("regions", "notes"), [(2, 1), (3, 0), (4, 0)])
def test_a_query_of_as_many_regions_as_prototypes_has_them(regions, notes):
    slide = {"slide_id": "a", "status": artifacts.OK, "reason": "", "regions": regions}
    assert len(search.describe_query(slide, 3, "")["notes"]) == notes


def test_labels_of_each_task_have_a_column(make):
    similar, _, text = make(["a"], labels={"label": {"b": "x", "a": "<b>"}, "grade": {"b": "y", "d": "x"}})
    assert similar[["label", "label_grade"]].to_numpy().tolist() == [["x", "y"], ["", "x"], ["", ""]]
    assert "x, grade: y" in text
    assert "&lt;b&gt;" in text
    assert not re.search(r"<b>|<script", text)


def read_pictures(text):
    """Of each picture of the page: its alternative text and its pixels."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)">', text)
    return [(alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))) for data, alt in found]


def test_matched_regions_are_side_by_side(make):
    pictures = read_pictures(make(["a"], k=1)[2])
    shown = [(alt, *pixels[64, 64].round(-1)) for alt, pixels in pictures if alt.startswith("Region")]
    of_a, of_b = "Region of a", "Region of b"
    assert [alt for alt, *_ in shown] == [of_a, of_a, of_a, of_b, of_a, of_b]
    assert np.abs(np.array([color for _, *color in shown]) - [RED, BLUE, RED, RED, BLUE, BLUE]).max() <= 10


def test_regions_are_framed_in_the_colors_of_their_pairs(make):
    """On a thumbnail of half the size; the first frame is on top, that of a small region large enough to be seen."""
    thumbnail, corners = Image.new("RGB", (400, 200), "white"), np.array([[0, 0], [100, 0], [600, 200]])
    colors = ["#ff0000", "#0000ff"]
    framed = np.asarray(frame_regions(thumbnail, (800, 400), corners, 100, colors))
    assert framed[25, [1, 49]].tolist() == [[255, 0, 0]] * 2
    assert framed[25, 99].tolist() == [0, 0, 255]
    assert framed[125, 301].tolist() == [255, 0, 0]
    assert framed[25, [20, 80, 200]].min() == 255
    small = np.asarray(frame_regions(thumbnail, (800, 400), corners[2:], 1, colors))
    assert (small != 255).any(2).sum() >= 36
    assert {alt for alt, _ in read_pictures(make(["a"], k=1)[2]) if "Thumb" in alt} == {
        "Thumbnail of a",
        "Thumbnail of b",
    }


def test_a_slide_that_cannot_be_read_any_more_is_shown_without_its_regions(make):
    _, _, text = make(["a"], k=1, missing=["b"])
    assert text.count("cannot be read") == 2
    assert sum(alt == "Region of a" for alt, _ in read_pictures(text)) == 4


def test_the_page_shows_the_first_queries_and_the_tables_all(make, monkeypatch):
    monkeypatch.setattr(page, "MAX_SHOWN", 1)
    similar, _, text = make(["a", "c", "d"])
    assert {*similar["query"]} == {"a", "c", "d"}
    assert "2 further queries are in the tables only" in text
    assert text.count("<h2 ") == 1


def test_an_index_of_another_ledger_is_refused(make, tmp_path, monkeypatch):
    read = search_index.read_index
    monkeypatch.setattr(search, "read_index", lambda path: (read(path)[0], read(path)[1] | {"ledger": "other"}))
    with pytest.raises(ValueError, match=r"index\.h5: was made from another ledger"):
        make(["a"])
