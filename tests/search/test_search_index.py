"""The index holds the prototypes of a run, each with a region of its cluster."""

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts, config
from slpd_core.pretraining.prototypes import cluster_slides
from slpd_core.search import search_index
from slpd_core.search.search_index import build_index

OPTIONS = {"n_prototypes": 3, "kmeans_restarts": 4, "kmeans_iterations": 6, "epochs": 7, "seed": 2}


def make_embed(sizes, seed=0):
    """Random embeddings of slides of so many regions, interleaved; corners tell the regions apart."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat([*sizes], [*sizes.values()]))
    rows = np.arange(len(ids))
    embeddings = [*rng.normal(size=(len(ids), 8)).astype(np.float32)]
    return pd.DataFrame({"slide_id": ids, "x": rows * 64, "y": rows * 3, "embedding": embeddings}).astype({"x": int})


def test_prototypes_are_those_of_the_run():
    embed = make_embed({"a": 9, "small": 2, "b": 30, "c": 3})
    index = build_index(embed, 8, **OPTIONS)
    ids = [*embed["slide_id"].unique()]
    of_run = cluster_slides(
        np.stack(embed["embedding"]),
        embed["slide_id"].map(ids.index).to_numpy(),
        ids,
        M=3,
        restarts=4,
        iterations=6,
        seed=2,
        epoch=7,
    )
    assert [*index.slide_ids] == [slide for slide in ids if slide != "small"]
    for i, slide in enumerate(index.slide_ids):
        rows = np.flatnonzero(embed["slide_id"] == slide)
        assignment, centers = of_run.assignment[rows], of_run.centers[ids.index(slide)]
        np.testing.assert_array_equal(index.prototypes[i], centers)
        for m in range(3):
            members = embed.iloc[rows[assignment == m]]
            distance = [np.linalg.norm(vector - centers[m]) for vector in members["embedding"]]
            nearest = members.iloc[int(np.argmin(distance))]
            assert index.coords[i, m].tolist() == [nearest["x"], nearest["y"]]
            assert index.sizes[i, m] == len(members)


def test_a_further_slide_changes_no_other():
    embed = make_embed({"a": 9, "b": 12})
    before, after = (build_index(frame, 8, **OPTIONS) for frame in (embed, pd.concat([make_embed({"n": 8}, 1), embed])))
    assert after.slide_ids == ("n", *before.slide_ids)
    for name in ("prototypes", "coords", "sizes"):
        np.testing.assert_array_equal(getattr(after.select(before.slide_ids), name), getattr(before, name))
        joined = build_index(make_embed({"n": 8}, 1), 8, **OPTIONS).join(before)
        np.testing.assert_array_equal(getattr(joined, name), getattr(after, name))


def test_a_prototype_without_members_is_shown_by_some_region_of_its_slide():
    embed = make_embed({"a": 4}).assign(embedding=[np.ones(8, np.float32)] * 4)  # all regions are alike
    index = build_index(embed, 8, **OPTIONS)
    assert index.sizes.sum() == 4
    assert {*map(tuple, index.coords[0])} <= {*map(tuple, embed[["x", "y"]].to_numpy())}


@pytest.mark.parametrize("sizes", [{"größe": 9, "b": 5, "small": 1}, {"small": 2}, {}])
def test_the_stage_writes_what_is_read(sizes, tmp_path, caplog):
    embed = make_embed(sizes)
    meta = artifacts.provenance("embed", 1, {}, "f") | {"embed_dim": "8", "ledger": "l"}
    artifacts.write_table(tmp_path / "embed.parquet", "embed", embed, meta)
    section = {name: value for name, value in OPTIONS.items() if name != "seed"}
    search_index.run(
        embed_path=tmp_path / "embed.parquet",
        out_path=tmp_path / "index.h5",
        section=config.SearchIndexConfig(**section),
        seed=2,
    )
    index, meta = search_index.read_index(tmp_path / "index.h5")
    expected = build_index(embed, 8, **OPTIONS)
    assert index.slide_ids == expected.slide_ids
    for name in ("prototypes", "coords", "sizes"):
        np.testing.assert_array_equal(getattr(index, name), getattr(expected, name))
    assert (meta["ledger"], meta["seed"], meta["embed_dim"]) == ("l", "2", "8")


def test_a_prototype_is_shown_by_a_member_even_where_another_region_is_nearer():
    """As after the last step of k-means, when the centers have moved and the regions have not been assigned anew."""
    regions, prototypes = np.array([[0.0], [3.0], [10.0]]), np.array([[2.9], [9.0]])
    assert search_index._nearest_members(regions, prototypes, np.array([0, 1, 1])).tolist() == [0, 2]
