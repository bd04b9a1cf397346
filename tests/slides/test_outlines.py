"""Tissue outlined by hand is taken as its author meant it: by names, classes, kinds of object and origin."""

import gzip
import json

import h5py
import numpy as np
import pytest
from shapely import LineString, MultiPolygon, Point, Polygon, box, make_valid, union_all
from shapely.geometry import mapping

from slpd_core import artifacts
from slpd_core.slides import outline_files, outlines, tissue
from slpd_core.wsi.reader import Slide, find_bounds_corner
from tests.wsi.test_identity import SIDE, write_mirax

SLIDE_PX = (3000, 2000)


def feature(geometry, name="", kind="annotation", **properties):
    """A feature as QuPath writes it."""
    if name:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    properties |= {"objectType": kind} if kind else {}
    return {"type": "Feature", "id": "x", "geometry": geometry and mapping(geometry), "properties": properties}


def save(folder, *features, name="mask.geojson"):
    """A GeoJSON as QuPath exports annotations."""
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def read(path, **how):
    return outlines.read_outline(path, SLIDE_PX, **how)


def area(polygons):
    return sum(polygon.area for polygon in polygons)


def test_areas_are_joined_mended_and_cut_off_at_the_slide(tmp_path):
    """Overlapping areas become one, a bow tie two."""
    bow_tie = Polygon([(2000, 0), (2400, 400), (2400, 0), (2000, 400)])
    path = save(tmp_path, *map(feature, (box(-500, 0, 300, 400), box(200, 0, 600, 400), bow_tie)))
    polygons, remarks = read(path)
    truth = box(0, 0, 600, 400).union(make_valid(bow_tie))
    assert union_all(polygons).symmetric_difference(truth).area == pytest.approx(0)
    assert all(polygon.is_valid for polygon in polygons)
    assert area(polygons) == pytest.approx(600 * 400 + 2 * 200 * 200)
    assert remarks == ("38% of its outline lies outside the slide and is cut off.",)


def test_an_empty_outline_is_no_tissue_and_a_wrong_one_is_named(tmp_path):
    assert read(save(tmp_path)) == ((), ())
    with pytest.raises(ValueError, match=r"mask\.geojson: its areas lie outside the slide of 3000 x 2000 px"):
        read(save(tmp_path, feature(box(5000, 0, 6000, 10))))
    with pytest.raises(ValueError, match=r"mask\.geojson: holds LineString; outline tissue with areas only"):
        read(save(tmp_path, feature(LineString([(0, 0), (1, 1)]))))
    with pytest.raises(ValueError, match=r"mask\.geojson: holds detection; outline tissue with areas only"):
        read(save(tmp_path, feature(box(0, 0, 9, 9), kind="detection")))
    for text in ("[1", "[1]", '{"a": 1}'):
        (tmp_path / "mask.geojson").write_text(text)
        with pytest.raises(ValueError, match=r"mask\.geojson: not a GeoJSON of areas"):
            read(tmp_path / "mask.geojson")


def test_lines_points_and_detections_do_not_count_and_are_counted(tmp_path):
    old = feature(box(0, 1000, 500, 1500), kind="") | {"id": "PathDetectionObject"}
    others = [feature(LineString([(0, 0), (900, 900)])), feature(Point(5, 5)), feature(None), old]
    others += [feature(box(1000, 0, 2000, 900), kind=kind) for kind in ("detection", "cell", "tile", "tma_core")]
    polygons, remarks = read(
        save(tmp_path, feature(box(0, 0, 100, 100)), feature(box(200, 0, 300, 50), kind=""), *others)
    )
    assert area(polygons) == 100 * 100 + 100 * 50
    assert remarks == ("8 of 10 objects of its outline are lines, points or detections: they do not count.",)


def test_classes_are_tissue_or_left_out(tmp_path, settings):
    """Also those that are derived, or written as other tools do."""
    features = [
        feature(box(0, 0, 1000, 1000), "Tissue"),
        feature(box(100, 100, 300, 300), "Ignore*"),
        feature(box(1200, 0, 1700, 500), "Ignore*: Fold"),
        feature(box(1200, 1000, 1700, 1500), "Artifact"),
    ]
    path = save(tmp_path, *features)
    outline = settings.tissue.outline
    assert area(read(path, classes=outline.classes, ignore=outline.ignore)[0]) == 960_000
    assert area(read(path)[0]) == 960_000 + 500**2
    assert area(read(path, ignore=["artifact"])[0]) == 960_000
    names = ["Tumor: Core", "tumor", "Stroma"]
    features = [feature(box(200 * i, 0, 200 * i + 100, 100), name) for i, name in enumerate(names)]
    features.append(feature(box(0, 500, 50, 600), classification='{"name": "Tumor"}'))
    features.append(feature(box(0, 1000, 100, 1100), classification={"names": ["Tumor", "Core"]}))
    path = save(tmp_path, *features, feature(box(900, 0, 1000, 100)))
    assert area(read(path)[0]) == 55_000
    assert area(read(path, classes=["Tumor"])[0]) == 35_000
    assert area(read(path, classes=["Tumor: Core"])[0]) == 20_000
    polygons, remarks = read(path, classes=["Epithelium"])
    assert polygons == ()
    assert remarks == (
        "Its outline has no area of tissue.classes, but of Stroma, Tumor, Tumor: Core, no class, tumor.",
    )


# Slides by id, and their files.
ST, A, MULLER = {"s": "1.svs", "t": "2.svs"}, {"a": "1.svs"}, {"M\u00fcller": "1.svs", "b": "2.svs"}


def test_an_outline_may_have_the_name_of_the_slides_file(tmp_path):
    """As TRIDENT names them; an id goes before the name of another slide's file."""
    slides = {"a": "one/x.svs", "b": "two/a.svs", "c": "one/y.svs", "d": "two/y.svs"}
    for name in ("x.geojson", "a.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"x\.geojson are of one slide|a\.json and x\.geojson are of one slide"):
        outline_files.find_outlines(str(tmp_path), slides)
    (tmp_path / "a.json").unlink()
    assert outline_files.find_outlines(str(tmp_path), slides).paths == {"a": tmp_path / "x.geojson"}
    assert outline_files.find_outline(str(tmp_path), "a", slides) == tmp_path / "x.geojson"
    (tmp_path / "y.geojson").touch()  # of c or of d
    with pytest.raises(ValueError, match=r"no slide of a sheet is called y\.geojson"):
        outline_files.find_outlines(str(tmp_path), slides)


@pytest.mark.parametrize("name", ["s.geojson", "S.GeoJSON", "s.json", "s.geojson.gz", "s.JSON.GZ"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_outlines_of_all_names_and_encodings_are_read(tmp_path, name, encoding):
    text = json.dumps([feature(box(0, 0, 900, 900), "Gewebe ä")], ensure_ascii=False).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
    found = outline_files.find_outlines(str(tmp_path), ST)
    assert found.paths == {"s": tmp_path / name}
    assert outline_files.find_outline(str(tmp_path), "s", ST) == tmp_path / name
    assert outline_files.find_outline(str(tmp_path), "t", ST) is None
    assert area(read(found.paths["s"])[0]) == 900**2


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08torn", gzip.compress(b"[]" * 99, mtime=0)[:-9]], ids=["no package", "cut off"]
)
def test_a_torn_package_is_named(tmp_path, content):
    (tmp_path / "s.geojson.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.geojson\.gz: not a GeoJSON of areas"):
        read(tmp_path / "s.geojson.gz")


def test_a_package_is_held_to_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("slpd_core.artifacts.geojson.MAX_UNPACKED_BYTES", 10_000)
    (tmp_path / "s.geojson.gz").write_bytes(gzip.compress(b" " * 10_001))
    with pytest.raises(ValueError, match=r"unpacks to more than 10,000 bytes"):
        read(tmp_path / "s.geojson.gz")


def test_the_folder_of_outlines_says_what_it_has(tmp_path):
    assert outline_files.find_outlines(None, A).paths == {}
    assert outline_files.find_outline(None, "a", A) is None
    with pytest.raises(FileNotFoundError, match=r"tissue\.masks_dir: no folder"):
        outline_files.find_outlines(str(tmp_path / "gone"), A)
    for name in ("Mu\u0308ller.geojson", "notes.txt", "project.json", "._Mu\u0308ller.geojson", ".DS_Store"):
        (tmp_path / name).touch()
    found = outline_files.find_outlines(str(tmp_path), MULLER)
    assert found.paths.keys() == {"M\u00fcller"}
    assert outline_files.find_outline(str(tmp_path), "M\u00fcller", MULLER) == found.paths["M\u00fcller"]
    assert found.describe(2) == "1 of 2 slides have an outline; of no slide: notes.txt, project.json"


def test_outlines_of_no_slide_or_two_of_one_are_named(tmp_path):
    (tmp_path / "aa.geojson.gz").touch()
    with pytest.raises(
        ValueError, match=r"tissue\.masks_dir: no slide of a sheet is called aa\.geojson\.gz; name it .*a\.geo"
    ):
        outline_files.find_outlines(str(tmp_path), A)
    (tmp_path / "aa.geojson").touch()
    with pytest.raises(ValueError, match=r"aa\.geojson and aa\.geojson\.gz are of one slide"):
        outline_files.find_outlines(str(tmp_path), {"aa": "x.svs"})


@pytest.mark.parametrize(("origin", "corner"), [("slide", (0, 0)), ("bounds", (SIDE, 0))])
def test_an_outline_counts_from_where_the_setting_says(tmp_path, settings, origin, corner):
    """Of a slide whose scanned area begins at its second column of images."""
    path, mask = write_mirax(tmp_path / "a.mrxs", images=(1, 3)), save(tmp_path, feature(box(10, 20, 40, 50)))
    with Slide(path) as slide:
        assert slide.bounds_xy == (SIDE, 0)
    outline = settings.tissue.outline.model_copy(update={"mask_origin": origin})
    found, _ = tissue.segment_file("a", path, mask_path=mask, **outline.model_dump())
    assert found.polygons[0].bounds == (10 + corner[0], 20, 40 + corner[0], 50)
    assert found.source == {"slide": "outline", "bounds": "outline from bounds"}[origin]
    artifacts.write_tissue(tmp_path / "t.geojson", found, artifacts.provenance("tissue", 1, {}, "f"))
    assert artifacts.read_tissue(tmp_path / "t.geojson")[0] == found


def test_an_outline_on_a_slide_with_bounds_needs_an_origin(tmp_path, settings, planted):
    path, mask = write_mirax(tmp_path / "a.mrxs", images=(1, 3)), save(tmp_path, feature(box(10, 20, 40, 50)))
    with pytest.raises(ValueError, match=rf"tissue\.mask_origin: null, but a has .* begin at \({SIDE}, 0\)"):
        tissue.segment_file("a", path, mask_path=mask, **settings.tissue.outline.model_dump())
    found, _ = tissue.segment_file("b", planted((640, 480), {}), mask_path=mask, **settings.tissue.outline.model_dump())
    assert (found.source, area(found.polygons)) == ("outline", 900)


def test_polygons_are_ordered_by_rows():
    right, left = box(10, 0, 20, 5), box(0, 6, 5, 9)
    assert outlines.sorted_polygons(MultiPolygon([left, right])) == (right, left)


@pytest.mark.parametrize(
    ("properties", "corner"),
    [({}, (0, 0)), ({"x": "7", "y": "9"}, (7, 9)), ({"x": "7"}, (7, 0)), ({"x": "-1", "y": "no"}, (0, 0))],
)
def test_bounds_are_read_where_they_are_stated(properties, corner):
    assert find_bounds_corner({f"openslide.bounds-{axis}": text for axis, text in properties.items()}) == corner


def test_a_mistyped_origin_is_refused():
    with pytest.raises(ValueError, match="no origin 'bound'"):
        outlines.find_origin("a", (100, 200), "bound")


def test_trident_reads_regions_at_the_size_the_file_states(tmp_path):
    """It multiplies by the ratio of magnifications: at 0.499 um/px 1024 px are 1024, not 1026."""
    slide = artifacts.SlideInfo("s", artifacts.OK, "", 9000, 9000, 0.499, "vendor", "f")
    found = artifacts.Regions(slide, np.zeros((1, 2), np.int64), np.ones(1, np.float32), 1024, 1024, 0.5)
    artifacts.write_regions(tmp_path / "r.h5", found, artifacts.provenance("regions", 1, {}, "f"))
    with h5py.File(tmp_path / "r.h5") as file:
        attributes = dict(file["coords"].attrs)
    scale = attributes["level0_magnification"] / attributes["target_magnification"]
    assert round(attributes["patch_size"] * scale, 6) == attributes["patch_size_level0"] == 1024
