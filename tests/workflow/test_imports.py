"""Regions and tokens from other tools' files: found by name, tracked, and equal to what was exported."""

from types import SimpleNamespace as Wildcards

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
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
        ("patch_encoder", {"path": "x"}, "path: given, but source is random; set source to features"),
        ("regions", {"coordinates": "x"}, r"format: None, but coordinates is x; give both or neither .*trident, hs2p"),
        ("regions", {"format": "hs2p"}, "format: hs2p, but coordinates is None"),
    ],
)
def test_half_a_setting_is_refused(section, keys, line):
    with pytest.raises(ValueError, match=line):
        load_settings(**{section: keys})


def test_what_was_exported_comes_back_as_it_was(copied, snakemake):
    """Tokens by TRIDENT's files of features, regions by hs2p's coordinates."""
    exported = snakemake(copied, "export", overlay={"export": {"formats": ["trident", "hs2p"]}})
    assert exported.returncode == 0, exported.stdout + exported.stderr
    results = copied / "results" / "tiny"
    theirs = results / "export" / "trident" / "20x_64px_0px_overlap" / "features_patch_tokens"
    assert len([*theirs.glob("*.h5")]) == 4
    (theirs / "fine-0.h5").unlink()
    overlay = {
        "patch_encoder": {"compared": {"theirs": {"source": "features", "path": str(theirs), "format": "trident"}}},
        "evaluate": {"classifiers": {"theirs": ["dsmil"]}},
    }
    done = snakemake(copied, "--until", "compared_ledger", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    for slide in ("coarse-0", "größe-1", "fine-1"):
        (ours, _), (imported, meta) = (
            artifacts.read_tokens(results / folder / "tokens" / f"{slide}.h5") for folder in ("", "compared/theirs")
        )
        np.testing.assert_array_equal(imported.tokens, ours.tokens)
        assert meta["encoder_source"] == "features"
    ledger, _ = artifacts.read_table(results / "compared" / "theirs" / "ledger.parquet", "ledger")
    reasons = ledger.set_index("slide_id")["reason"]
    assert reasons["fine-0"].startswith("fine-0: no file of features in patch_encoder.path")
    assert snakemake(copied, "-n", "--until", "compared_ledger", overlay=overlay).jobs == {}

    coordinates = results / "export" / "hs2p" / "regions"
    ours, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    listed = {"regions": {"coordinates": str(coordinates), "format": "hs2p"}}
    done = snakemake(copied, "results/tiny/regions/fine-1.h5", overlay=listed)
    assert done.returncode == 0, done.stdout + done.stderr
    imported, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    order = np.lexsort(ours.coords.T[::-1])
    np.testing.assert_array_equal(imported.coords, ours.coords[order])
    np.testing.assert_array_equal(imported.tissue_fraction, ours.tissue_fraction[order])
    assert imported.slide == ours.slide
