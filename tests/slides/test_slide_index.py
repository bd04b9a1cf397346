"""The page of all slides: problems first, planted shares of tissue held, and nothing of a slide taken for HTML."""

import math
import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapely import box

from slpd_core import artifacts
from slpd_core.slides import slide_index

META = artifacts.provenance("stage", 1, {}, "f")


@pytest.fixture
def index(tmp_path):
    """Write the page of slides given as {slide_id: (regions, status, reason, remarks ...)}; returns its text.

    Each region is 512 px of 0.5 um, three quarters of it tissue, on a slide with 2000 x 1000 px of tissue; of a slide
    with remarks it is 2000 x 2000 px.
    """

    def write(slides, focus=None):
        cohort = tmp_path / "results" / "lung"
        for name in ("regions", "slides"):
            (cohort / name).mkdir(parents=True)
        frame = pd.DataFrame([(name, f"p-{name}", 0.5, "") for name in slides], columns=[*artifacts.TABLES["sheet"]])
        artifacts.write_table(tmp_path / "sheet.parquet", "sheet", frame, META)
        for name, (count, status, reason, *remarks) in slides.items():
            size, mpp = ((8000, 6000), 0.5) if status == artifacts.OK else ((0, 0), math.nan)
            info = artifacts.SlideInfo(name, status, reason, *size, mpp, "sheet", name, tuple(remarks))
            polygons = (box(0, 0, 2000, 2000 if remarks else 1000),) if status == artifacts.OK else ()
            artifacts.write_tissue(cohort / f"tissue/{name}.geojson", artifacts.Tissue(info, polygons), META)
            coords, fractions = np.zeros((count, 2), np.int64), np.full(count, 0.75, np.float32)
            of_focus = None if focus is None else np.full(count, focus, np.float32)
            regions = artifacts.Regions(info, coords, fractions, 512, 512, 0.5, of_focus)
            artifacts.write_regions(cohort / f"encoded/{name}.h5", regions, META)
            artifacts.write_picture(cohort / f"regions/{name}.png", Image.new("RGB", (640, 480)))
        slide_index.run(
            sheet_path=tmp_path / "sheet.parquet",
            tissue_paths=[cohort / f"tissue/{name}.geojson" for name in slides],
            encoded_paths=[cohort / f"encoded/{name}.h5" for name in slides],
            overlays_dir=cohort / "regions",
            out_path=cohort / "slides" / "index.html",
        )
        page = (cohort / "slides" / "index.html").read_text(encoding="utf-8")
        links = {unquote(link) for link in re.findall(r'href="([^"]+)"', page)}
        assert [link for link in links if not (cohort / "slides" / link).exists()] == []
        assert len(links) == 2 * len(slides)
        return page

    return write


def read_rows(page):
    """Texts of the cells of each row, and what its links and pictures are."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL)
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in re.split(r"</t[dh]>", row)[1:-1]] for row in rows]


GOOD = (4, artifacts.OK, "")


def test_problems_come_first_and_shares_are_those_planted(index):
    slides = {"a": GOOD, "größe (1)": (2, artifacts.OK, "", "The scale is <odd>."), "blank": (0, artifacts.OK, "none")}
    page = index(slides | {"torn": (0, artifacts.QUARANTINED, "torn: torn & short")})
    rows = read_rows(page)
    assert [row[0].partition("patient p-")[0] for row in rows] == ["torn", "blank", "größe (1)", "a"]
    assert [row[1] for row in rows] == ["quarantined", "no regions", "used", "used"]
    assert [row[3:7] for row in rows] == [
        ["–", "0.0", "0", "–"],
        ["8,000 × 6,000", "0.5", "0", "0 %"],
        ["8,000 × 6,000", "1.0", "2", "10 %"],  # 2 x 512 x 512 x 0.75 of 2000 x 2000 px
        ["8,000 × 6,000", "0.5", "4", "39 %"],
    ]
    assert [row[7] for row in rows] == ["torn &amp; short", "none", "The scale is &lt;odd&gt;.", ""]
    assert '<li class="warn">' in page
    assert (
        "Slides used: 2 of 4 (1 quarantined, 1 without regions). Their regions hold 20 % of 1.5 mm² of tissue." in page
    )
    assert "Slides used that have warnings: 1." in page
    assert page.count("<img") == 3


def test_all_is_well_where_all_slides_are_used_and_focus_is_there_if_measured(index):
    page = index({"a": GOOD, "b": GOOD}, focus=52.4)
    assert re.findall(r'<li class="(\w+)">', page) == ["pass"]
    assert [row[7] for row in read_rows(page)] == ["52", "52"]


@pytest.mark.parametrize("slides", [{}, {"a": (0, artifacts.QUARANTINED, "torn")}], ids=["none", "quarantined"])
def test_a_cohort_without_a_usable_slide_has_a_page(index, slides):
    page = index(slides)
    assert re.findall(r'<li class="(\w+)">', page) == ["fail"]
    assert f"Slides used: 0 of {len(slides)}" in page


def test_copies_of_two_patients_which_stop_the_ledger_are_named(index, monkeypatch):
    info = artifacts.SlideInfo
    monkeypatch.setattr(artifacts, "SlideInfo", lambda *values: info(*values[:7], "same", *values[8:]))
    page = index({"a": GOOD, "b": GOOD})
    assert page.count("are the same slide, byte for byte, of patient") == 2
