"""Regions and tokens from other tools' files are found by name; that exports come back is in test_export_runs.py."""

from types import SimpleNamespace as Wildcards

import numpy as np
import pandas as pd
import pytest

from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.imports import ImportedFiles
from slpd_core.workflow.slides import SlideFiles
from slpd_core.workflow.tracking import existing
from tests.workflow.planted_settings import load_settings


@pytest.fixture
def imports(tmp_path):
    """Files that slides are imported from: of slide a in one/x.svs and of slide b in two/y.svs."""

    def make(*names, paths=("one/x.svs", "two/y.svs"), planning=True):
        folder = tmp_path / "theirs"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).touch()
        theirs = {"source": "features", "path": str(folder), "format": "trident"}
        settings = load_settings(
            patch_encoder={"compared": {"theirs": theirs}}, regions={"coordinates": str(folder), "format": "trident"}
        )
        sheet = pd.DataFrame({"slide_id": ["a", "b"], "path": paths, "mpp": np.nan})
        slides = SlideFiles(settings, sheet, {}, {}, planning=planning)
        return ImportedFiles(settings, slides, Encoders(settings, ["a", "b"], ["label"]))

    return make


def test_a_file_is_named_after_the_id_or_after_the_slides_file(imports, tmp_path):
    found = imports("a.h5", "y_patches.h5")
    a, b = Wildcards(slide="a", encoder="theirs"), Wildcards(slide="b", encoder="theirs")
    assert found.features(a) == str(tmp_path / "theirs" / "a.h5")
    assert found.features_of_one(b) == [None]
    assert existing(found.features_of_one)(b) == existing(found.features)(b) == []
    assert found.coordinates(b) == str(tmp_path / "theirs" / "y_patches.h5")
    assert found.features(Wildcards(slide="a")) is None  # the cohort's own encoder takes none


@pytest.mark.parametrize(
    ("name", "paths"), [("a.h5", ("one/x.svs", "two/a.svs")), ("x.h5", ("one/x.svs", "two/x.svs"))]
)
def test_a_file_of_two_slides_is_refused(imports, name, paths):
    with pytest.raises(ValueError, match=rf"{name}: its name is that of slide a and of slide b, by id or by"):
        imports(name, paths=paths)


@pytest.mark.parametrize(
    ("section", "keys", "line"),
    [
        ("patch_encoder", {"source": "features"}, r"patch_encoder\.?.*path: null, but source is features"),
        (
            "patch_encoder",
            {"source": "features", "path": "x"},
            r"format: None, but path is x; .*trident, slide2vec, hipt",
        ),
        ("patch_encoder", {"path": "x"}, "path: given, but source is None; set source to features"),
        ("regions", {"coordinates": "x"}, r"format: None, but coordinates is x; give both or neither .*trident, hs2p"),
        ("regions", {"format": "hs2p"}, "format: hs2p, but coordinates is None"),
    ],
)
def test_half_a_setting_is_refused(section, keys, line):
    with pytest.raises(ValueError, match=line):
        load_settings(**{section: keys})
