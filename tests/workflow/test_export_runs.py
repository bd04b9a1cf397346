"""Exports of a whole cohort, and what comes back by imports."""

import json
import shutil

import numpy as np
import pytest

from slpd_core import artifacts
from tests.export.readers import read_clam, read_h5ad, read_rows, read_trident_coords

EVERY = {"formats": ["trident", "clam", "stamp", "slide2vec", "hs2p", "torchmil", "h5ad", "qupath", "huggingface"]}


def test_an_export_trains_nothing_unless_the_evaluation_is_a_target_too(copied, snakemake):
    for part in ("evaluate", "attention"):
        shutil.rmtree(copied / "results" / "tiny" / part)
    overlay = {"export": {"formats": ["qupath", "h5ad"]}}
    alone = snakemake(copied, "-n", "export", overlay=overlay)
    assert alone.jobs == {"export_slide": 6, "export_tables": 1, "h5ad": 2, "export": 1}
    beside = snakemake(copied, "-n", "export", "all", overlay=overlay)
    assert beside.jobs.items() >= (alone.jobs | {"evaluate_folds": 6, "attention": 2}).items()


def test_corners_of_patches_are_exported_before_there_are_tokens(copied, snakemake):
    folder = copied
    for part in ("tokens", "encoded", "ledger", "embed"):
        shutil.rmtree(folder / "results" / "tiny" / part)
    overlay = {"export": {"formats": ["trident"], "what": ["patches"]}}
    done = snakemake(folder, "export", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.jobs == {"export_slide": 6, "export_tables": 1, "export": 1}
    results = folder / "results" / "tiny"
    bag = read_trident_coords(results / "export" / "trident", "fine-1.tiff", 20, 64)
    assert bag.corners.shape == (12 * 16, 2)
    assert snakemake(folder, "-n", "export", overlay=overlay).jobs == {}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, finished, snakemake):
    """A copy of the finished cohort, exported to every format, and the run."""
    folder = tmp_path_factory.mktemp("exported") / "cohort"
    shutil.copytree(finished[0], folder, symlinks=True, copy_function=shutil.copy2)
    done = snakemake(folder, "export", overlay={"export": EVERY})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_a_finished_cohort_is_exported_by_one_job_per_slide(exported, snakemake):
    folder, done = exported
    assert done.jobs == {"export_slide": 6, "export_tables": 1, "h5ad": 2, "huggingface": 2, "export": 1}
    assert "torn has no features, quarantined" in done.stdout + done.stderr
    results = folder / "results" / "tiny"
    tokens, _ = artifacts.read_tokens(results / "tokens" / "größe-1.h5")
    bag = read_clam(results / "export" / "clam" / "patch_tokens", "größe-1")
    np.testing.assert_array_equal(bag.vectors, tokens.tokens.reshape(-1, 64).astype(np.float32))
    assert len(read_clam(results / "export" / "clam" / "slpd", "größe-1").vectors) == 12
    tiles = json.loads((results / "export" / "qupath" / "slpd" / "größe-1.geojson").read_text())["features"]
    measured = {"tissue_fraction", "attention_label_vit_wsi"} | {f"p_{x}_label_vit_wsi" for x in ("coarse", "größer")}
    assert measured <= tiles[0]["properties"]["measurements"].keys()
    assert read_h5ad(results / "export" / "h5ad" / "slpd.h5ad")["X"].shape == (4 * 12, 24)
    assert (results / "export" / "huggingface" / "dino" / "README.md").exists()
    for name in [name for name in EVERY["formats"] if name not in ("h5ad", "huggingface")]:
        rows = read_rows(results / "export" / name / "exported.csv")
        assert [row["status"] for row in rows].count("ok") == 4
    labels = {row["slide_id"]: row["label"] for row in read_rows(results / "export" / "clam" / "label.csv")}
    assert labels == {"coarse-0": "coarse", "größe-1": "coarse", "fine-0": "größer", "fine-1": "größer"}
    assert snakemake(folder, "-n", "export", "all", overlay={"export": EVERY}).jobs == {}


def test_what_was_exported_comes_back_as_it_was(exported, snakemake):
    """Tokens by TRIDENT's files of features, regions by hs2p's coordinates."""
    folder, _ = exported
    results = folder / "results" / "tiny"
    theirs = results / "export" / "trident" / "20x_64px_0px_overlap" / "features_patch_tokens"
    assert len([*theirs.glob("*.h5")]) == 4
    (theirs / "fine-0.h5").unlink()
    overlay = {
        "patch_encoder": {"compared": {"theirs": {"source": "features", "path": str(theirs), "format": "trident"}}},
        "evaluate": {"classifiers": {"theirs": ["dsmil"]}},
    }
    done = snakemake(folder, "--until", "compared_ledger", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    for slide in ("coarse-0", "größe-1", "fine-1"):
        (ours, _), (imported, meta) = (
            artifacts.read_tokens(results / part / "tokens" / f"{slide}.h5") for part in ("", "compared/theirs")
        )
        np.testing.assert_array_equal(imported.tokens, ours.tokens)
        assert meta["encoder_source"] == "features"
    ledger, _ = artifacts.read_table(results / "compared" / "theirs" / "ledger.parquet", "ledger")
    reasons = ledger.set_index("slide_id")["reason"]
    assert reasons["fine-0"].startswith("fine-0: no file of features in patch_encoder.path")
    assert snakemake(folder, "-n", "--until", "compared_ledger", overlay=overlay).jobs == {}

    coordinates = results / "export" / "hs2p" / "regions"
    ours, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    listed = {"regions": {"coordinates": str(coordinates), "format": "hs2p"}}
    done = snakemake(folder, "results/tiny/regions/fine-1.h5", overlay=listed)
    assert done.returncode == 0, done.stdout + done.stderr
    imported, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    order = np.lexsort(ours.coords.T[::-1])
    np.testing.assert_array_equal(imported.coords, ours.coords[order])
    np.testing.assert_array_equal(imported.tissue_fraction, ours.tissue_fraction[order])
    assert imported.slide == ours.slide
