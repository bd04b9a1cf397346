"""A GeoJSON for QuPath has a tile per region: its place, class, and finite measurements."""

import json
import math
import uuid

import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.export import qupath
from slpd_core.export.region_table import read_predictions
from tests.export.conftest import BOUNDS, FOCUS, FOLDS, LEVEL0, PROTOTYPES

COLUMNS = ["fold", "slide_id", "patient_id", "label", "value", "p_x"]


@pytest.fixture
def tiles(exported, planted):
    """Export to QuPath, and read the tiles of a slide."""
    for run, fold, rows in (
        ("slpd", 0, [("a", 0.25), ("b-1", math.nan)]),
        ("slpd", 1, [("b-1", math.nan)]),
        ("slpd", 3, [("a", 0.75)]),
        ("dino", 0, [("a", 0.9)]),
    ):
        table = pd.DataFrame([(fold, slide, slide, "x", 7.0, p) for slide, p in rows], columns=COLUMNS)
        path = planted.root / "evaluate" / "label" / run / "knn" / f"fold{fold}.parquet"
        artifacts.write_table(path, "evaluate", table, artifacts.provenance("evaluate", 1, {}, "f"))

    def read(slide: str, **options) -> list[dict]:
        folder = exported("qupath", what=["regions"], **options)
        collection = json.loads((folder / "qupath" / "slpd" / f"{slide}.geojson").read_text())
        assert collection["type"] == "FeatureCollection"
        return collection["features"]

    return read


@pytest.mark.parametrize(("origin", "shift"), [("bounds", BOUNDS), ("slide", (0, 0))])
def test_a_tile_lies_where_qupath_sees_its_region(tiles, planted, origin, shift):
    for (left, top), tile in zip(planted.regions["a"].coords.tolist(), tiles("a", origin=origin), strict=True):
        x, y = left - shift[0], top - shift[1]
        (ring,) = tile["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert sorted(ring[:4]) == sorted([[x, y], [x + LEVEL0, y], [x + LEVEL0, y + LEVEL0], [x, y + LEVEL0]])
    (tile,) = tiles("b-1", origin=origin)
    assert tile["geometry"]["coordinates"][0][0] == planted.regions["b-1"].coords[0].tolist()  # it has no bounds


def test_a_tile_has_the_class_of_its_prototype_and_what_is_measured(tiles, planted):
    for i, tile in enumerate(tiles("a")):
        assert (tile["type"], tile["properties"]["objectType"]) == ("Feature", "tile")
        x, y = planted.regions["a"].coords[i].tolist()
        kind = tile["properties"]["classification"]
        assert kind["name"] == f"Prototype {PROTOTYPES['a', x, y]}"
        assert all(0 <= channel <= 255 for channel in kind["color"])
        assert tile["properties"]["measurements"] == pytest.approx(
            {
                "tissue_fraction": float(planted.regions["a"].tissue_fraction[i]),
                "attention_label_vit_wsi": (FOLDS[0][x, y] + FOLDS[3][x, y]) / 2,
                "p_x_label_knn": 0.5,
                "focus": float(FOCUS[i]),
            }
        )


def test_an_encoder_of_a_fold_has_the_predictions_of_that_fold_alone(tiles, planted):
    paths = sorted((planted.root / "evaluate").rglob("*.parquet"))
    of_encoder = {name: read_predictions(paths, name, "a") for name in ("slpd", "slpd.fold0", "slpd.fold3")}
    assert {name: [*read.values()] for name, read in of_encoder.items()} == {
        "slpd": [0.5],
        "slpd.fold0": [0.25],
        "slpd.fold3": [0.75],
    }


def test_what_is_not_known_is_left_out(tiles, planted):
    (tile,) = tiles("b-1")
    assert "classification" not in tile["properties"]
    assert tile["properties"]["measurements"] == {"tissue_fraction": float(planted.regions["b-1"].tissue_fraction[0])}


def test_ids_are_uuids_that_stay_and_differ(tiles):
    ids = [tile["id"] for tile in tiles("a")]
    assert len({uuid.UUID(text) for text in ids}) == 3
    assert [tile["id"] for tile in tiles("a", origin="slide", to="again")] == ids
    assert tiles("b-1")[0]["id"] not in ids


def test_ten_prototypes_have_colors_of_their_own():
    assert len({*qupath.PROTOTYPE_COLORS}) == 10
