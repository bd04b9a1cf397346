"""An AnnData file of a run holds each region with its embedding, prototype, attention and position."""

import h5py
import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.export import h5ad
from tests.export.conftest import FOLDS, LEVEL0, PROTOTYPES
from tests.export.readers import read_h5ad


def write(planted, run="slpd", to="slpd.h5ad"):
    """Write the file; the prototypes are those of slpd."""
    path = planted.root / to
    h5ad.run(
        embed_path=planted.root / "embed" / f"{run}.parquet",
        prototypes_path=planted.root / "pretrain" / "slpd" / "prototypes.h5",
        attention_paths=sorted((planted.root / "attention").rglob("*.parquet")),
        regions_dir=planted.root / "regions",
        out_path=path,
    )
    return path


def test_each_region_has_its_embedding_prototype_attention_and_place(planted):
    read = read_h5ad(write(planted))
    obs, slides = read["obs"], ["a"] * 3 + ["b-1"]
    corners = np.concatenate([planted.regions[slide].coords for slide in ("a", "b-1")])
    assert obs["slide_id"] == slides
    np.testing.assert_array_equal(np.stack([obs["x"], obs["y"]], 1), corners)
    assert obs["index"] == [f"{slide}:{x},{y}" for slide, (x, y) in zip(slides, corners.tolist(), strict=True)]
    vectors = np.concatenate([planted.embeddings["slpd"][slide] for slide in ("a", "b-1")])
    np.testing.assert_array_equal(read["X"], vectors)
    assert read["X"].dtype == np.float32
    fractions = np.concatenate([planted.regions[slide].tissue_fraction for slide in ("a", "b-1")])
    np.testing.assert_array_equal(obs["tissue_fraction"], fractions)
    prototypes = [PROTOTYPES.get((slide, *xy)) for slide, xy in zip(slides, corners.tolist(), strict=True)]
    assert obs["prototype"] == [None if number is None else str(number) for number in prototypes]
    mean = [np.mean([FOLDS[0][x, y], FOLDS[3][x, y]]) for x, y in corners[:3].tolist()]
    np.testing.assert_allclose(obs["attention_label_vit_wsi"], [*mean, np.nan])
    np.testing.assert_array_equal(read["obsm"]["spatial"], corners + LEVEL0 / 2)
    assert len(read["var"]["index"]) == read["X"].shape[1]
    assert read["uns"]["slpd"]["encoder"] == "slpd"
    assert {"layers", "obsp", "varm", "varp"} <= read.keys()


def test_prototypes_are_ordered_as_numbers(planted):
    with h5py.File(write(planted)) as file:
        assert [*file["obs/prototype/categories"].asstr()] == ["0", "2", "10"]


def test_an_encoder_of_a_fold_has_the_attention_of_that_fold_alone(planted):
    frame, meta = artifacts.read_table(planted.root / "embed" / "slpd.parquet", "embed")
    artifacts.write_table(planted.root / "embed" / "slpd.fold3.parquet", "embed", frame, meta)
    obs = read_h5ad(write(planted, "slpd.fold3"))["obs"]
    expected = [FOLDS[3][x, y] for x, y in planted.regions["a"].coords.tolist()]
    assert obs["attention_label_vit_wsi"][:3].tolist() == expected


def test_two_writings_have_equal_bytes(planted):
    assert write(planted).read_bytes() == write(planted, to="again.h5ad").read_bytes()


def test_a_cohort_without_regions_has_an_empty_file(planted):
    meta = artifacts.read_table(planted.root / "embed" / "slpd.parquet", "embed")[1]
    frame = pd.DataFrame({"slide_id": [], "x": [], "y": [], "embedding": []})
    frame = frame.astype({"slide_id": str, "x": int, "y": int, "embedding": object})
    artifacts.write_table(planted.root / "embed" / "slpd.parquet", "embed", frame, meta)
    read = read_h5ad(write(planted))
    assert read["X"].shape == (0, 3)
    assert read["obsm"]["spatial"].shape == (0, 2)
    assert read["obs"]["slide_id"] == []


def test_regions_and_prototypes_of_others_are_refused(planted):
    regions = planted.regions["a"]
    fewer = artifacts.Regions(regions.slide, regions.coords[1:], regions.tissue_fraction[1:], 256, LEVEL0, 0.5)
    artifacts.write_regions(planted.root / "regions" / "a.h5", fewer, artifacts.provenance("regions", 1, {}))
    with pytest.raises(ValueError, match=r"a\.h5: slide a has 3 regions here and 2"):
        write(planted)
    path = planted.root / "pretrain" / "slpd" / "prototypes.h5"
    arrays, _ = artifacts.read_arrays(path, ("region_slide", "coords", "assignment"))
    artifacts.write_arrays(path, arrays, {}, artifacts.provenance("pretrain", 1, {}) | {"ledger": "theirs"})
    with pytest.raises(ValueError, match=r"prototypes\.h5: was made from another ledger"):
        write(planted)


def test_attention_of_others_is_refused(planted):
    path = planted.root / "attention" / "label" / "slpd" / "vit_wsi.parquet"
    table, meta = artifacts.read_table(path, "attention")
    artifacts.write_table(path, "attention", table, meta | {"ledger": "theirs"})
    with pytest.raises(ValueError, match=r"vit_wsi\.parquet: was made from another ledger"):
        write(planted)
