"""Cohorts composed of real phenotypes: no tile in two slides, labels in what the design says, and claims."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyClassifier

from benchmarks.evidence import __main__ as command
from benchmarks.evidence import arms, encoder, experiment, measures, runs, stain_maps, statistics, tiles
from benchmarks.evidence.cohorts import Design, Pool, compose, draw_labels, slide_stain

SMALL = Design(n_slides=12, n_regions=6, n_tiles=2)


@pytest.fixture
def pool():
    """Tokens that say phenotype, tile, patch and slide: no encoder, no stain."""
    shape = (SMALL.n_slides, len(tiles.PHENOTYPES), SMALL.n_tiles, tiles.PATCHES)
    slide, kind, tile, patch = np.indices(shape)
    return Pool(np.stack([kind, slide, tile, patch], -1).astype(np.float16), np.zeros((*shape[:3], 3), np.float32))


@pytest.fixture
def tile_folder(tmp_path):
    """Tiles of noise about a color per phenotype, and of the first phenotype two that are one picture turned."""
    rng = np.random.default_rng(0)
    for part, n in (("training", 2 * SMALL.n_slides), ("test", 2)):
        for i, phenotype in enumerate(tiles.PHENOTYPES):
            folder = tmp_path / part / phenotype
            folder.mkdir(parents=True)
            for k in range(n):
                smooth = cv2.resize(rng.integers(0, 90, (8, 8, 3), np.uint8), (224, 224), interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(folder / f"{k:02d}.jpg"), smooth + np.uint8(20 * i))
    first = tmp_path / "training" / "AC"
    cv2.imwrite(str(first / "turned.jpg"), np.rot90(cv2.imread(str(first / "00.jpg"))))
    return tmp_path


def test_a_picture_counts_once_however_it_is_turned(tile_folder):
    listed = tiles.list_tiles(tile_folder / "training")
    assert {phenotype: len(paths) for phenotype, paths in listed.items()} == dict.fromkeys(tiles.PHENOTYPES, 24)


def test_no_tile_is_in_two_slides(tile_folder):
    listed = tiles.list_tiles(tile_folder / "training")
    dealt = tiles.deal(listed, 0, SMALL.n_slides, SMALL.n_tiles)
    paths = [path for of_slide in dealt for of_phenotype in of_slide for path in of_phenotype]
    assert len(set(paths)) == len(paths) == SMALL.n_slides * len(tiles.PHENOTYPES) * SMALL.n_tiles
    with pytest.raises(ValueError, match="24 tiles are too few for 13 slides of 2"):
        tiles.deal(listed, 0, SMALL.n_slides + 1, SMALL.n_tiles)


def test_quarters_are_the_tile():
    tile = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    a, b, c, d = tiles.quarter(tile)[0]
    np.testing.assert_array_equal(np.block([[[a], [b]], [[c], [d]]]).reshape(4, 4, 3), tile[0])


@pytest.mark.parametrize("kind", ["hed", "curve"])
def test_a_stain_of_no_strength_changes_nothing_and_glass_stays_white(kind):
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    unchanged = tiles.stain(patches, tiles.draw_stain(kind, 0.0, rng))
    assert np.abs(unchanged.astype(int) - patches).max() <= 1
    white = np.full((1, 4, 4, 3), 255, np.uint8)
    changed = tiles.stain(patches, tiles.draw_stain(kind, 0.2, rng))
    assert np.abs(changed.astype(int) - patches).mean() > 2
    if kind == "curve":
        assert (tiles.stain(white, tiles.draw_stain(kind, 0.2, rng)) == 255).all()


@pytest.mark.parametrize("design", experiment.DESIGNS)
def test_a_region_is_made_of_its_slides_tiles(pool, design):
    design = replace(experiment.DESIGNS[design], n_slides=12, n_regions=6, n_tiles=2)
    composed = compose(pool, design, 1)
    kind, slide, _, patch = composed.cohort.tokens.numpy().astype(int).transpose(3, 0, 1, 2)
    assert (slide == composed.cohort.slide_of[:, None, None]).all()
    np.testing.assert_array_equal(patch, np.broadcast_to(np.tile([[0, 1], [2, 3]], (4, 4)), patch.shape))
    counted = np.stack([(kind == each).mean((1, 2)) for each in range(len(tiles.PHENOTYPES))], 1)
    np.testing.assert_allclose(composed.known[:, : len(tiles.PHENOTYPES)], counted)
    purity = counted[np.arange(len(counted)), composed.phenotype].mean()
    assert design.purity < purity + 0.1
    assert sorted(composed.labels) == [0] * 6 + [1] * 6


def test_labels_by_arrangement_show_in_what_touches_and_in_nothing_else():
    """Phenotypes that touch under one label never do under the other, but for the ends of a walk."""
    design = Design(label="arrangement", n_slides=60, n_regions=12, n_tiles=1, purity=0.0, concentration=1e4)
    shape = (design.n_slides, len(tiles.PHENOTYPES), 1, tiles.PATCHES)
    pool = Pool(np.zeros((*shape, 1), np.float16), np.zeros((*shape[:3], 3), np.float32))
    composed = compose(pool, design, 0)
    label = composed.labels[composed.cohort.slide_of]
    n = len(tiles.PHENOTYPES)
    share = [composed.known[label == each, :n].mean(0) for each in (0, 1)]
    np.testing.assert_allclose(*share, atol=0.03)
    touching = [composed.known[label == each, n:].mean(0).reshape(n, n) for each in (0, 1)]
    on_ring = np.abs(np.subtract.outer(range(n), range(n))) % (n - 2) == 1
    assert touching[0][on_ring].mean() > 1.5 * touching[1][on_ring].mean()


def test_stain_goes_with_the_label_where_it_is_confounded_and_not_elsewhere():
    design = Design(n_slides=400, confounded=True)
    labels, first_half = draw_labels(design, 0)
    strength = np.array([slide_stain(design, 0, slide)[:3].trace() for slide in range(design.n_slides)])
    tied, free = (strength[part] - strength[part].mean() for part in (first_half, ~first_half))
    assert np.corrcoef(tied, labels[first_half])[0, 1] > 0.7
    assert abs(np.corrcoef(free, labels[~first_half])[0, 1]) < 0.2


def test_what_is_known_is_measured(monkeypatch):
    monkeypatch.setattr(measures, "REPEATS", 1)
    monkeypatch.setattr(measures, "linear_probe", DummyClassifier)
    rng = np.random.default_rng(0)
    labels, slide_of = np.arange(40) % 2, np.repeat(np.arange(40), 5)
    phenotype = rng.integers(0, 3, 200)
    told = np.eye(3)[phenotype] + 0.01 * rng.normal(size=(200, 3))
    scores = measures.measure(told, slide_of, labels, phenotype, 0)
    assert scores["phenotype"] == 1
    assert scores["eta2 phenotype"] > 0.99
    label_too = np.c_[told, 3 * labels[slide_of]]
    assert measures.measure(label_too, slide_of, labels, phenotype, 0)["kNN AUC"] == 1
    assert measures.measure(label_too, slide_of, labels, phenotype, 0, np.arange(40) < 20)["kNN AUC"] == 1
    assert 0.2 < np.mean([measures.measure(told, slide_of, labels, phenotype, s)["permuted"] for s in range(5)]) < 0.8


def test_stain_maps_are_what_a_stain_does_to_tokens(tile_folder, monkeypatch):
    """An encoder that is linear in optical density: a stain is a linear map of its tokens, and no shift."""
    monkeypatch.setattr(stain_maps, "N_MAPS", 3)
    monkeypatch.setattr(stain_maps, "RIDGE", 1e-6)
    monkeypatch.setattr(stain_maps, "encode", lambda _, patches, __: np.log(patches + 1.0).mean((1, 2)))
    paths = [path for paths in tiles.list_tiles(tile_folder / "training").values() for path in paths]
    maps = stain_maps.fit_stain_maps(None, paths)
    assert maps.explained > 0.98 > 0.9 > maps.explained_by_shift
    tokens = torch.randn(2, 5, 3, 3, 3)
    (changed,) = maps.augment([tokens], np.arange(5), 5, np.random.default_rng(0))
    candidates = tokens + tokens @ maps.weight[:, None, None, None] + maps.bias[:, None, None, None, None]
    away = (changed - candidates.view(3, 2, 5, 3, 3, 3)).abs().amax((-1, -2, -3))
    assert (away.min(0).values < 1e-5).all()


def test_the_number_of_seeds_is_that_of_a_paired_t_test():
    """Of the protocol: .02 with a deviation of .032; by hand from noncentral t, 23 pairs have a power of .81."""
    assert statistics.seeds_needed(0.032, 0.02) == 23
    away = 0.02 + 0.032 * np.random.default_rng(0).standard_normal((4000, 23))
    t = away.mean(1) / away.std(1, ddof=1) * np.sqrt(23)
    assert abs((np.abs(t) > 2.074).mean() - 0.81) < 0.02


def test_the_whole_experiment_runs_small(tile_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "DESIGNS", {"mixture": SMALL})
    monkeypatch.setattr(encoder, "VIT", replace(encoder.VIT, model_kwargs={"depth": 1}, out_dim=32, hidden_dim=16))
    monkeypatch.setattr(encoder, "RECIPE", replace(encoder.RECIPE, epochs=1, batch_size=4))
    monkeypatch.setattr(arms, "RECIPE", arms.RECIPE | {"epochs": 1, "prototype_start_epoch": 0, "warmup_epochs": 0})
    monkeypatch.setattr(measures, "REPEATS", 1)
    monkeypatch.setattr(measures, "linear_probe", DummyClassifier)
    monkeypatch.setattr(stain_maps, "N_MAPS", 2)
    monkeypatch.setattr(runs, "in_processes", lambda work, jobs, _: (work(*job) for job in jobs))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    chosen = ["--tiles", str(tile_folder), "--out", str(tmp_path / "out"), "--seeds", "0", "2"]
    chosen += ["--afresh", "--arms", "oracle", "mean color", "whitened mean token", "dino", "slpd", "slpd + maps"]
    command.main(chosen)
    printed = capsys.readouterr().out
    assert "2 seeds, mean" in printed
    assert "| slpd − dino | " in printed
    assert "nan" not in printed.split("Differences")[0]
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert len(rows) == 12
    command.main(chosen)  # nothing is made again
    assert capsys.readouterr().out == printed


def test_measured_rows_are_reported_without_tiles_and_not_computed_again(tmp_path, monkeypatch, capsys):
    rows = [
        {"design": "mixture", "seed": seed, "way": way, "5-NN AUC": auc + seed / 1000}
        for seed in (100, 101, 102)
        for way, auc in (("dino", 0.8), ("slpd", 0.7 + seed / 1e5))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "measured.csv", index=False)
    monkeypatch.setattr(command, "MEASURED", tmp_path / "measured.csv")
    chosen = ["--out", str(tmp_path / "out"), "--arms", "dino", "slpd", "--seeds", "100"]
    command.main([*chosen, "103"])
    assert "| slpd − dino | -0.099" in capsys.readouterr().out
    for named in ([*chosen, "104"], [*chosen, "103", "--afresh"]):
        with pytest.raises(SystemExit, match=r"pools of seeds \[10[03].* are missing: name the folder of tiles"):
            command.main(named)
