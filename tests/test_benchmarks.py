"""Every benchmark and experiment runs on something small, and says of it what is known."""

import os
import re
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks import __main__ as benchmarks
from benchmarks import (
    checksums,
    endpoint_intervals,
    epoch,
    evaluation,
    export,
    gpu,
    imports,
    intervals,
    planted,
    prototypes,
    reading,
    search,
    shared,
    slides,
    step,
    timing,
    tissue,
    tokens,
    workflow,
)
from benchmarks.evidence import measures, statistics
from slpd_core import artifacts, config
from slpd_core.export.export import WRITERS
from slpd_core.prototypes import matching
from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[1]
SIZE = {"n_prototypes": 2, "embed_dim": 24, "depth": 2, "n_heads": 2, "hidden_dim": 32, "bottleneck_dim": 16}
SIZE |= {"out_dim": 64, "n_local_crops": 2}
STEPS = {"epochs": 2, "batch_size": 16, "warmup_epochs": 1}
CROPS = {"global_crop_size": 3, "local_crop_size": 2}


class Here:
    """A pool of processes that is this process, in which constants are small."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *given):
        done = Future()
        done.set_result(work(*given))
        return done

    def map(self, work, *given):
        return [*map(work, *given)]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Small settings; work that would have processes of its own is done here, on one thread."""
    values = read_shipped()
    values["pretrain"] |= SIZE | STEPS | CROPS
    values["evaluate"]["epochs"] = 1
    settings = config.load(values)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (evaluation, planted, prototypes, reading, search, slides, step, tissue, tokens):
        inside = {
            "settings": lambda: settings,
            "ProcessPoolExecutor": Here,
            "in_own_process": lambda work, *given: (work(*given), timing.Cost(1.0, 1.0, 1.0)),
            "keep_freed_memory": lambda: None,
        }
        for name, value in inside.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


@pytest.fixture
def printed(monkeypatch, capsys):
    """Run a benchmark with other constants; gives what it printed, and the cells of each line of its tables."""

    def run(module, main=None, **constants):
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
        (main or module.main)()
        text = capsys.readouterr().out
        return text, [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]

    return run


def lines_of(table, first):
    """The cells of the lines that begin so."""
    return [cells for cells in table if cells[0] == first]


def test_each_is_known_by_its_name():
    """What stands in the folder and has a main is run by its name, and here."""
    named = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()}
    assert named == {*benchmarks.BENCHMARKS, *benchmarks.EXPERIMENTS}
    source = Path(__file__).read_text()
    assert {name for name in named if re.search(rf"printed\({name}\b", source)} == named


@pytest.mark.parametrize("composed", [True, False])
def test_reading_a_region_gives_the_pixels_of_openslide(printed, monkeypatch, tmp_path, composed):
    if composed:
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, 255, (14, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels.repeat(16, 0).repeat(16, 1)).save(tmp_path / f"{seed}.jpeg")
        monkeypatch.setenv("READING_TILES", str(tmp_path))
    monkeypatch.setattr(reading, "peers", dict)
    _, table = printed(reading, REGION_PX=512, SLIDE_PX=1024, TILES_PX=(256,), ROUNDS=1, PROCESSES=1)
    ours = lines_of(table, "ours")
    assert [cells[4] for cells in ours] == ["0"] * 4
    assert int(lines_of(table, "ours, decoded at half scale")[0][4]) > 0
    assert [cells[3] for cells in lines_of(table, "floor: decoding the tiles")] == ["100%"] * 3


def test_artifacts_are_read_with_and_without_their_checksums(printed):
    _, table = printed(checksums, REGIONS=2, GRID=2, DIM=8, EMBEDDINGS=9, SLIDES=2, ROUNDS=1)
    assert len(lines_of(table, "checked")) == 3


def test_a_slide_is_exported_in_each_format(printed):
    _, table = printed(export, N_REGIONS=2, GRID=2, TOKEN_DIM=4, EMBED_DIM=2, N_SLIDES=2, ROUNDS=1)
    assert [cells[0] for cells in table[2:]] == [*WRITERS, f"all {len(WRITERS)}"]


def test_an_import_is_timed_in_another_process(printed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _, table = printed(imports, USES={"light": ("", 0.2), "heavy": ("slpd.read", 2.0)}, ROUNDS=1)
    (light,), (heavy,) = lines_of(table, "light"), lines_of(table, "heavy")
    assert min(float(light[1]), float(heavy[1])) > 0
    assert light[2] == "0.2"


def test_stages_of_a_slide(printed):
    text, table = printed(slides, SMALL_PX=1024, LARGE_PX=(1500, 1200), NEEDED_GB=0)
    assert text.count("thumbnail from level") == 3
    assert len(lines_of(table, "tissue: segment")) == 3


def test_tokens_are_those_of_the_published_way(printed):
    small = {"NAME": "test_vit", "WIDTH": 64, "SQUARE": 64, "CALLS": 1, "LAYERS": ((64, 192),), "REGION_PX": 512}
    simulated = {"FED_SLIDES": (2, 1), "FED_THREADS": (1, 2), "READING_SECONDS": 0.01}
    _, table = printed(tokens, **small, **simulated)
    assert [cells[0] for cells in table[-2:]] == ["1", "2"]
    ours = lines_of(table, "ours, fp32")[0]
    assert float(ours[4]) < 1e-3  # kept as float16
    assert lines_of(table, "fp32: fp32")


def test_a_step_is_that_of_the_plain_way(printed):
    constants = {"TOKEN_DIM": 8, "BATCHES": (4, 8), "PLAIN_AT_MOST": {"cpu": 4}, "MULTIPLIED": ((8, 8, 8),)}
    _, table = printed(step, **constants, ROUNDS={"cpu": 1})
    loss, gradients = map(float, lines_of(table, "ours, fp32")[0][1:])
    assert loss < 1e-5
    assert gradients < 1e-5
    assert [cells[1:3] for cells in table if cells[0] == "fp32"] == [
        ["plain", "4"],
        ["ours", "4"],
        ["plain", "4"],
        ["ours", "8"],
    ]


def test_changes_of_a_step_on_a_gpu(printed, monkeypatch):
    """In bfloat16 on a CPU, where nothing is captured."""
    monkeypatch.setattr(step, "TOKEN_DIM", 8)
    small = {"GRID": 5, "BATCH": 64, "SLIDES": 4, "REGIONS": 128, "ROUNDS": 1}
    text, table = printed(gpu, partial(gpu.main, "cpu"), **small)
    assert "nan" not in text
    assert "equal to those of a CPU: True" in text
    for name in gpu.WAYS:
        _, (_, loss, gradients, *_, captured) = lines_of(table, name)
        assert float(loss) < 1e-5
        assert float(gradients) < 1e-2
        assert captured == "no"
    cast, copied = (lines_of(table, name)[1][1:3] for name in list(gpu.WAYS)[1:3])
    assert copied == cast
    assert lines_of(table, "fp32")[0][3] == "0.00%"
    assert "No GPU on this machine" in printed(gpu)[0]


def test_a_step_of_the_papers_networks_starts_few_kernels(monkeypatch):
    settings = config.load(read_shipped())
    monkeypatch.setattr(slides, "settings", lambda: settings)
    before, *_, after = (gpu.count_kernels(gpu.WAYS[name]) for name in list(gpu.WAYS)[:3])
    assert before > 2 * after
    assert after <= 1335


@pytest.fixture
def few_regions(monkeypatch):
    for name, value in {"SLIDES": 12, "REGIONS": 150, "DIM": 8, "M": 2}.items():
        monkeypatch.setattr(prototypes, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("few_regions")
def test_an_epoch(printed, monkeypatch):
    monkeypatch.setattr(step, "TOKEN_DIM", 8)
    monkeypatch.setattr(step, "MULTIPLIED", ((8, 8, 8),))
    assert printed(epoch)[0] == "No GPU on this machine.\n"
    text, table = printed(epoch, partial(epoch.epochs, "cpu"), GRID=4, BATCH=16)
    assert text.startswith("150 regions on cpu")
    assert [cells[0] for cells in table[2:]] == ["on the GPU", "in memory"]


@pytest.mark.usefixtures("few_regions")
def test_prototypes_are_those_of_plain_ways(printed, monkeypatch):
    monkeypatch.setattr(matching, "parallel_map", matching.parallel_map)  # the benchmark puts its own in its place
    small = {"MANY_SLIDES": 64, "TRIED_BLOCKS": 2, "SUBSETS": (2, 12), "FEW_SLIDES": 4}
    text, table = printed(prototypes, **small)
    assert "neighbors identical" in text
    spread = dict(re.findall(r"(scikit-learn|plain|ours)\b(?:, slide by slide)? (\d+\.\d+)", text))
    assert float(spread["ours"]) == pytest.approx(float(spread["scikit-learn"]), rel=0.1)
    assert [cells[2] for cells in table if cells[0] in ("2", "12")] == ["subsets", "Hungarian"]


def test_a_search_finds_what_matching_every_pair_finds(printed):
    _, table = printed(search, SLIDES=60, DIM=8, PROTOTYPES=(2, 4), QUERIES=3, ROUNDS=1)
    lines = table[2:]
    assert [cells[2] for cells in lines] == [*search.WAYS] * 4
    assert {cells[6] for cells in lines} == {"identical"}
    assert all(float(cells[4]) < 60 for cells in lines if cells[2] != "every pair")


def test_classifiers(printed):
    small = {"SLIDES": 16, "REGIONS": 3, "DIM": 12, "FOLDS": 2, "PATCHES": 4, "PATCH_DIM": 6}
    text, table = printed(evaluation, **small, EPOCHS=1, ROUNDS=1, NEEDED_GB=0)
    assert "10 jobs of 16 slides" in text
    assert [cells[0] for cells in table].count("dsmil") == 2
    assert all(0 <= float(auc) <= 1 for auc in re.findall(r"AUC: knn ([\d.]+), mil ([\d.]+)", text)[0])


def test_intervals(printed):
    designs = ("partition", "repeats", "10 hold-outs")
    _, table = printed(intervals, COHORTS=3, cases=lambda: [(design, "fixed", 40, 3, 1.0) for design in designs])
    rates = np.array([[float(cell) for cell in cells[4:]] for cells in table[2:]])
    assert rates.shape == (3, 1 + len(intervals.NAMES))
    assert ((rates >= 0) & (rates <= 1)).all()


def test_intervals_of_every_endpoint(printed):
    cases = [(kind, scorer, 40, 0.7) for kind in endpoint_intervals.ENDPOINTS for scorer in ("fixed", "linear")]
    _, table = printed(endpoint_intervals, COHORTS=3, cases=lambda: cases)
    scores = [score for kind, *_ in cases for score in endpoint_intervals.ENDPOINTS[kind].scores]
    assert [cells[1] for cells in table[2:]] == scores
    assert all(0 <= float(cell) <= 1 for cells in table[2:] for cell in cells[5:])


SMALL_COHORT = {"SLIDES": 16, "REGIONS": 8, "DIM": 6, "NOISE": 0.3, "STAIN": 0.0, "NEIGHBOURS": 3}
TRAINED = {"RECIPE": planted.RECIPE | SIZE | STEPS | {"prototype_start_epoch": 0}, "CROPS": {8: CROPS, 16: CROPS}}


def test_what_is_planted_is_measured(monkeypatch):
    """The oracle knows the phenotypes; where there is no noise and no stain the mean token nearly does, but for those
    that the arrangement alone tells apart.
    """
    monkeypatch.setattr(measures, "REPEATS", 1)
    for name, value in (SMALL_COHORT | {"NOISE": 0.01}).items():
        monkeypatch.setattr(planted, name, value)
    found = {way: planted.one(way, 0, 8) for way in ("oracle", "mean token")}
    assert found["oracle"]["phenotype"] == found["oracle"]["arrangement"] == found["oracle"]["eta2 phenotype"] == 1
    assert 2 / planted.PHENOTYPES < found["mean token"]["phenotype"] < 1
    assert found["mean token"]["eta2 phenotype"] > 0.5


def test_a_claim_is_the_difference_of_its_two_rows():
    rows = [
        {"grid": 8, "seed": s, "way": w, "AUC": 0.6 + 0.1 * (w == "slpd") * (1 + s) + 0.01 * s}
        for s in (0, 1)
        for w in ("dino", "slpd")
    ]
    text = statistics.tables(pd.DataFrame(rows), ("dino", "slpd"), {"SLPD beats DINO": ("slpd", "dino")})
    assert "| dino | 0.605 ± 0.007 |" in text
    assert "| SLPD beats DINO | +0.150 [-0.485, +0.785] (2/2), p " in text


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(statistics.holm([0.04, np.nan, 0.01]), [0.08, 1, 0.03])
    assert statistics.holm([0.6, 0.7]).tolist() == [1, 1]
    assert statistics.holm([]).tolist() == []


@pytest.mark.slow
def test_planted_phenotypes(printed, monkeypatch):
    monkeypatch.setattr(measures, "REPEATS", 1)
    seeds = {"SEEDS": range(2), "FRESH_SEEDS": range(2, 4), "WATCHED_SEEDS": (0,), "as_completed": list}
    text, table = printed(planted, **SMALL_COHORT, **TRAINED, **seeds)
    assert {*planted.CLAIMS, *planted.CLAIMS_ON_FRESH} <= {cells[0] for cells in table}
    assert text.count("2 seeds, mean") == 4
    assert "nan" not in text
    text_again, _ = printed(planted)  # nothing is made again
    assert text_again == text


def write_results(folder):
    """What a run leaves to be read: a ledger, tokens of 16 x 16 and folds; the label is in colour and token."""
    ids = [f"s{number}" for number in range(12)]
    labels = np.array(["x", "y"] * 6)
    rng, rows = np.random.default_rng(0), []
    for slide, label in zip(ids, labels, strict=True):
        info = artifacts.SlideInfo(slide, artifacts.OK, "", 9000, 9000, 0.5, "sheet", "f")
        regions = artifacts.Regions(info, np.array([[0, 0], [4096, 0]]), np.ones(2, np.float32), 4096, 4096, 0.5)
        meta = artifacts.provenance("tokens", 1, {}, slide)
        with artifacts.create_tokens(folder / "tokens" / f"{slide}.h5", regions, 16, 8, meta) as written:
            written.tokens[:] = rng.normal(size=(2, 256, 8)) + (label == "y")
            written.mean_color[:] = 200 if label == "y" else 100
        rows.append((slide, slide, label, artifacts.OK, 2, meta["fingerprint"]))
    names = ("slide_id", "patient_id", "label", "status", "regions", "fingerprint")
    slides = pd.DataFrame(rows, columns=[*names])
    ledger = slides.reindex(columns=[*artifacts.TABLES["ledger"]])
    artifacts.write_table(folder / "ledger/ledger.parquet", "ledger", ledger, artifacts.provenance("ledger", 1, {}))
    parts = [
        slides[list(names[:3])].assign(fold=f, part=np.where(np.arange(12) // 6 == f, "test", "train"))
        for f in range(2)
    ]
    artifacts.write_table(
        folder / "folds/label/folds.parquet", "folds", pd.concat(parts), artifacts.provenance("folds", 1, {})
    )


def test_tissue_reads_what_a_run_has_left(printed, monkeypatch, tmp_path):
    assert "skipped" in printed(tissue)[0]
    write_results(tmp_path / "results")
    monkeypatch.setenv("TISSUE_RESULTS", str(tmp_path / "results"))
    small = {"SEEDS": range(1), "RECIPE": TRAINED["RECIPE"], "CROPS": TRAINED["CROPS"], "SIZE": {}}
    _, table = printed(tissue, **small)
    assert [cells[1] for cells in table if cells[0] == "KNN"] == [*tissue.WAYS]
    assert [cells[2:] for cells in table if cells[0] == "KNN"][:2] == [["1.000 ± nan"] * 2] * 2


@pytest.mark.slow
def test_the_workflows_own_time(printed):
    _, table = printed(workflow, PLANS={20: (600, 10_000)})
    assert lines_of(table, "20")
    jobs = {cells[0]: cells[1] for cells in table if len(cells) > 1}  # a rule under a head has one
    assert (jobs["tissue"], jobs["tokens"], jobs["report"]) == ("10", "10", "1")
    assert {"sheet", "regions", "pretrain", "embed", "labels", "folds", "evaluate"} <= {*jobs}


@pytest.mark.slow
def test_the_work_of_each_stage_beside_a_busy_process(printed, monkeypatch):
    monkeypatch.setattr(shared, "run_step", lambda _: 2.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    _, table = printed(shared, WAYS=dict.fromkeys(shared.WAYS, ({}, 0)))
    assert [cells[0] for cells in table[2:]] == [*shared.STAGES, "pretrain, a step of the paper's size"]
    assert table[-1][1:] == ["2.0", "2.0", "1.0", "1.0"]
