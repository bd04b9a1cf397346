"""The front door: light to open, the paper's values, and results that equal those of the stages."""

import ast
import inspect
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

import slpd_core as slpd
from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining import embed, patch_encoder
from slpd_core.slides import ledger, regions, tissue, tokens
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.writer import write_slide
from tests.fixtures.pretraining import build_student_teacher
from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[1]
FAST = {"source": "random", "name": "test_vit", "patch_px": 64, "precision": "fp32", "device": "cpu"}


@pytest.fixture
def slide_path(tmp_path):
    """A slide with a block of colored noise on glass, so that no two patches are alike."""
    coarse = np.random.default_rng(0).integers(60, 200, (80, 96, 3), dtype=np.uint8)
    coarse[..., 1] //= 2
    pixels = np.full((1024, 1024, 3), 244, np.uint8)
    pixels[128:768, 128:896] = coarse.repeat(8, 0).repeat(8, 1)
    write_slide(tmp_path / "s.tiff", pixels, 0.5)
    return tmp_path / "s.tiff"


def run_python(code, folder=ROOT):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_alone_loads_no_library():
    code = "import sys; before = {*sys.modules}; import slpd_core; print(*{*sys.modules} - before)"
    loaded = {name.split(".")[0] for name in run_python(code).split()}
    assert not loaded & {"torch", "numpy", "pandas", "pydantic", "timm", "openslide", "scipy", "yaml"}


def test_artifacts_and_settings_are_read_without_torch():
    code = "import sys, slpd_core as s; s.read, s.default_config, s.segment_tissue; print('torch' in sys.modules)"
    assert run_python(code) == "False\n"


def test_every_name_is_there_and_known_to_type_checkers():
    tree = ast.parse((ROOT / "slpd_core" / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("slpd_core")
        for alias in node.names
    }
    assert {*typed} == {*slpd.__all__} - {"__version__"}
    for name, module in typed.items():
        assert getattr(slpd, name) is getattr(__import__(module, fromlist=[name]), name)
    assert dir(slpd) == sorted(slpd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = slpd.nothing


def test_defaults_are_those_of_config_yaml():
    """Each keyword that config.yaml has too: the same value; what the config does not have is listed here."""
    settings = read_shipped()
    assert slpd.default_config() == config.load(settings)
    top, pretrain = {"seed": settings["seed"]}, settings["pretrain"]
    encoder = settings["patch_encoder"] | settings["tokens"]
    sections = {
        slpd.segment_tissue: (settings["tissue"], {"outline"}),
        slpd.select_regions: (settings["regions"], set()),
        slpd.build_patch_encoder: (encoder | top | {"model_kwargs": None}, {"device"}),
        slpd.load_patch_encoder: (encoder, {"device"}),
        slpd.build_region_encoder: (
            pretrain | top | {"grid": slpd.default_config().pretrain.run("slpd").global_crop_size, "token_dim": 384},
            {"weights", "device"},
        ),
        slpd.cluster_embeddings: (pretrain | top, {"patients", "epoch"}),
    }
    for function, (section, further) in sections.items():
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.default is not parameter.empty and name not in further
        }
        for name, value in defaults.items():
            stated = section[name]
            assert value == (tuple(stated) if isinstance(stated, list) else stated), f"{function.__name__}: {name}"


@pytest.fixture
def results(slide_path, tmp_path, settings):
    """The artifacts of a slide, from its tissue to its embeddings, as the stages write them; returns their folder."""
    paths = {"tissue_path": tmp_path / "t.geojson", "regions_path": tmp_path / "r.h5"}
    weights_path, encoded_path = tmp_path / "weights.safetensors", tmp_path / "encoded.h5"
    tissue.run(
        slide_id="s",
        slide_path=slide_path,
        mpp=None,
        geojson_path=paths["tissue_path"],
        overlay_path=tmp_path / "tissue.png",
        section=settings.tissue.segmentation,
        quarantine=(),
    )
    regions.run(
        **paths,
        outlined_path=tmp_path / "tissue.png",
        overlay_path=tmp_path / "regions.png",
        section=settings.regions.model_copy(update={"size_px": 256}),
        quarantine=(),
    )
    encoder = settings.patch_encoder.cohort_encoder.model_copy(
        update={"source": "random", "name": "test_vit", "patch_px": 64}
    )
    patch_encoder.run(weights_path=weights_path, section=encoder, seed=1)
    tokens.run(
        slide_paths=[slide_path],
        regions_paths=[paths["regions_path"]],
        weights_path=weights_path,
        tokens_paths=[tmp_path / "tokens" / "s.h5"],
        encoded_paths=[encoded_path],
        section=settings.tokens.encoding.model_copy(update={"precision": "fp32"}),
        device="cpu",
        quarantine=(),
    )
    row = {"slide_id": "s", "patient_id": "p", "mpp": np.nan, "site": ""}
    meta = artifacts.provenance("sheet", 1, {}, "f")
    artifacts.write_table(tmp_path / "sheet.parquet", "sheet", pd.DataFrame([row]), meta)
    ledger.run(
        sheet_path=tmp_path / "sheet.parquet",
        tissue_paths=[paths["tissue_path"]],
        encoded_paths=[encoded_path],
        out_path=tmp_path / "ledger.parquet",
        section=settings.ledger,
    )
    torch.manual_seed(0)
    region_encoder.write_region_encoder(
        tmp_path / "encoder.safetensors", region_encoder.RegionEncoder(64, 24, 2, 2, 3), meta | {"stage": "pretrain"}
    )
    embed.run(
        ledger_path=tmp_path / "ledger.parquet",
        cohort_ledger_path=tmp_path / "ledger.parquet",
        tokens_dir=tmp_path / "tokens",
        encoder_path=tmp_path / "encoder.safetensors",
        out_path=tmp_path / "embed.parquet",
        section=config.EmbedConfig(batch_size="auto", attention=True),
        device="cpu",
    )
    return tmp_path


def test_every_step_equals_its_stage(results, slide_path):
    with slpd.Slide(str(slide_path)) as slide:
        tissue = slpd.segment_tissue(slide)
        regions = slpd.select_regions(tissue, size_px=256)
        by_seed = slpd.encode(slide, regions, slpd.build_patch_encoder(**FAST))
        from_file = slpd.load_patch_encoder(results / "weights.safetensors", precision="fp32", device="cpu")
        by_file = slpd.encode(slide, regions, from_file)
        pixels = list(slpd.iter_regions(slide, regions))
    written = slpd.read(results / "tokens" / "s.h5")
    laid = slpd.read(results / "r.h5")
    assert [polygon.wkb for polygon in tissue.polygons] == [
        polygon.wkb for polygon in slpd.read(results / "t.geojson").polygons
    ]
    np.testing.assert_array_equal(regions.coords, laid.coords)
    np.testing.assert_array_equal(regions.tissue_fraction, laid.tissue_fraction)
    assert len(regions.coords) >= 6
    np.testing.assert_array_equal(by_seed, written.tokens)
    np.testing.assert_array_equal(by_file, written.tokens)
    assert by_seed.dtype == np.float16
    assert (len(pixels), pixels[0].shape, pixels[0].dtype) == (len(laid.coords), (256, 256, 3), np.uint8)

    encoder = slpd.load_region_encoder(str(results / "encoder.safetensors"), device="cpu")
    table = slpd.read(str(results / "embed.parquet"))
    np.testing.assert_array_equal(slpd.embed(by_seed, encoder), np.stack(table["embedding"]))
    np.testing.assert_array_equal(slpd.compute_attention(by_seed, encoder), np.stack(table["attention"]))


def test_weights_of_a_file_give_the_tokens_of_their_stage(results, slide_path, settings, tmp_path):
    """A state dict under source timm, with its own normalization and picture size."""
    tensors, _ = artifacts.read_weights(results / "weights.safetensors")
    state_path, weights_path = tmp_path / "state.safetensors", tmp_path / "timm.safetensors"
    save_file(tensors, state_path)
    given = {"source": "timm", "name": "test_vit", "weights": str(state_path), "patch_px": 64, "input_px": 96}
    given |= {"mean": (0.7, 0.5, 0.6), "std": (0.2, 0.25, 0.3), "pooling": "cls_mean"}
    patch_encoder.run(
        weights_path=weights_path, section=settings.patch_encoder.cohort_encoder.model_copy(update=given), seed=1
    )
    built = slpd.build_patch_encoder(**given, precision="fp32", device="cpu")
    loaded = slpd.load_patch_encoder(weights_path, precision="fp32", device="cpu")
    laid = slpd.read(results / "r.h5")
    with slpd.Slide(slide_path) as slide:
        tokens, wanted = slpd.encode(slide, laid, built), slpd.encode(slide, laid, loaded)
    np.testing.assert_array_equal(tokens, wanted)
    assert tokens.shape == (len(laid.coords), 16, 128)


def test_a_region_encoder_of_a_seed_is_what_a_run_of_it_begins_with(section):
    networks = build_student_teacher(section, 64, 5, "cpu")
    shape = {"token_dim": 64, "embed_dim": section.embed_dim, "depth": section.depth, "n_heads": section.n_heads}
    before = torch.random.get_rng_state()
    built = slpd.build_region_encoder(**shape, grid=section.global_crop_size, seed=5, device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())
    begun = networks.teacher.encoder.state_dict()
    assert all(torch.equal(tensor, begun[name]) for name, tensor in built.state_dict().items())
    assert not any(parameter.requires_grad for parameter in built.parameters())


def test_published_weights_are_taken_for_the_region_encoder(results):
    shape = {"token_dim": 64, "embed_dim": 24, "depth": 2, "n_heads": 2, "grid": 3}
    built = slpd.build_region_encoder(results / "encoder.safetensors", **shape, device="cpu")
    tokens = slpd.read(results / "tokens" / "s.h5").tokens
    trained = slpd.load_region_encoder(results / "encoder.safetensors", device="cpu")
    np.testing.assert_array_equal(slpd.embed(tokens, built), slpd.embed(tokens, trained))


def test_prototypes_are_the_planted_centers_and_match():
    """Two slides of the same four far-apart kinds of regions, in another order; a third one too small."""
    rng = np.random.default_rng(0)
    kinds = 10 * np.eye(4, 8, dtype=np.float32)
    embeddings = {
        "a": (kinds[[0, 0, 1, 1, 2, 2, 3, 3]] + rng.normal(0, 0.01, (8, 8))).astype(np.float32),
        "b": (kinds[[3, 2, 1, 0, 3, 2, 1, 0]] + rng.normal(0, 0.01, (8, 8))).astype(np.float32),
        "small": kinds[:3],
    }
    found = slpd.cluster_embeddings(embeddings)
    for slide in (0, 1):
        nearest = np.linalg.norm(found.centers[slide][:, None] - kinds, axis=2).argmin(1)
        assert sorted(nearest) == [0, 1, 2, 3]
        np.testing.assert_allclose(found.centers[slide], kinds[nearest], atol=0.05)
    assert found.neighbors.tolist() == [[1], [0], [-1]]
    assert not found.centers[2].any()
    similarity, partner = slpd.match_prototypes(found.centers[0], found.centers[1])
    np.testing.assert_array_equal(partner, found.matches[0, 0])
    np.testing.assert_allclose(found.centers[1][partner], found.centers[0], atol=0.05)
    assert similarity == pytest.approx(1, abs=1e-3)
    assert slpd.nearest_slides(found.centers[:2], 1)[0].tolist() == [[1], [0]]
    of_one = slpd.cluster_embeddings(embeddings, patients={"a": "p", "b": "p", "small": "q"})
    assert (of_one.neighbors == -1).all()


def test_every_artifact_is_read_by_its_path(results):
    kinds = {name: slpd.read(str(results / name)) for name in ("t.geojson", "r.h5", "tokens/s.h5", "encoded.h5")}
    types = [artifacts.Tissue, artifacts.Regions, artifacts.Tokens, artifacts.Regions]
    assert [type(content) for content in kinds.values()] == types
    assert slpd.read(results / "ledger.parquet")["slide_id"].tolist() == ["s"]
    assert slpd.read(results / "weights.safetensors")["pos_embed"].dtype == np.float32
    assert slpd.read(results / "regions.png").shape[2] == 3
    arrays = {"prototypes": np.ones((1, 2, 3), np.float32), "slides": np.array(["größe"])}
    artifacts.write_arrays(results / "prototypes.h5", arrays, {}, artifacts.provenance("pretrain", 1, {"K": 1}, "f"))
    read = slpd.read(results / "prototypes.h5")
    np.testing.assert_array_equal(read["prototypes"], arrays["prototypes"])
    assert read["slides"].tolist() == ["größe"]
    sample, patches = slpd.read(results / "r.h5"), np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    sample = replace(sample, coords=sample.coords[:1], size_px=2)
    with artifacts.create_patches(results / "p.h5", sample, artifacts.provenance("patches", 1, {}, "f")) as file:
        file[:] = patches
    np.testing.assert_array_equal(slpd.read(results / "p.h5"), patches)
    stages = {
        name: slpd.read_metadata(results / name)["stage"]
        for name in ("t.geojson", "r.h5", "tokens/s.h5", "ledger.parquet", "weights.safetensors", "prototypes.h5")
    }
    assert [*stages.values()] == ["tissue", "regions", "tokens", "ledger", "patch_encoder", "pretrain"]
    assert slpd.read_metadata(results / "r.h5")["section"]["size_px"] == 256


def test_what_is_no_artifact_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"no artifact ends in '\.csv'"):
        slpd.read(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        slpd.read(tmp_path / "none.h5")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"torn\.parquet: damaged"):
        slpd.read(tmp_path / "torn.parquet")


def test_an_empty_slide_has_no_regions_tokens_and_embeddings(planted):
    with slpd.Slide(planted((512, 512), {})) as slide:
        regions = slpd.select_regions(slpd.segment_tissue(slide), size_px=256)
        tokens = slpd.encode(slide, regions, slpd.build_patch_encoder(**FAST))
    assert "no tissue" in regions.slide.reason
    assert (tokens.shape, tokens.dtype) == ((0, 16, 64), np.float16)
    encoder = slpd.build_region_encoder(token_dim=64, device="cpu")
    embeddings = slpd.embed(tokens, encoder)
    assert (embeddings.shape, slpd.compute_attention(tokens, encoder).shape) == ((0, 192), (0, 16))
    assert not slpd.cluster_embeddings({"empty": embeddings}).centers.any()


def test_an_outline_takes_the_place_of_segmentation(planted, tmp_path):
    square = {"type": "Polygon", "coordinates": [[[0, 0], [256, 0], [256, 256], [0, 256], [0, 0]]]}
    (tmp_path / "outline.geojson").write_text(json.dumps(square))
    with slpd.Slide(planted((512, 512), {})) as slide:
        tissue = slpd.segment_tissue(slide, outline=str(tmp_path / "outline.geojson"))
        regions = slpd.select_regions(tissue, size_px=256)
        picture = slpd.draw_overlay(slide, tissue, regions, thumbnail_mpp=1)
    assert (tissue.source, regions.coords.tolist()) == ("outline", [[0, 0]])
    blue = (picture == (20, 60, 200)).all(2)
    assert blue[:130, :130].any()
    assert not blue[140:].any()


def test_a_slide_that_is_coarser_than_asked_for_is_refused(planted):
    with slpd.Slide(planted((512, 512), {(0, 0, 400, 400): (200, 120, 170)}, mpp=1.0)) as slide:
        tissue = slpd.segment_tissue(slide)
    with pytest.raises(SlideError, match="coarser"):
        slpd.select_regions(tissue)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slpd.build_patch_encoder(), "source: None loads no weights; give random, hipt or timm"),
        (lambda: slpd.build_patch_encoder("dino"), "loads no weights; give random, hipt or timm.*load_patch_encoder"),
        (lambda: slpd.cluster_embeddings({}), "one slide at least"),
        (lambda: slpd.cluster_embeddings({}, n_prototypes=1, center_slides=True), "set n_prototypes to 2 or more"),
        (lambda: slpd.build_region_encoder(n_heads=5), "embed_dim: 192 is not a multiple of n_heads 5"),
        (lambda: slpd.embed(np.zeros((2, 15, 8)), slpd.build_region_encoder(token_dim=8)), r"not \(regions, g \* g"),
        (lambda: slpd.embed(np.zeros((2, 16, 9)), slpd.build_region_encoder(token_dim=8)), "token_dim=9"),
        (lambda: slpd.build_patch_encoder("hipt"), "weights: null, but source is hipt"),
        (lambda: slpd.draw_demo_slide("x.tiff", label="x"), "give one of glands, nests"),
        (lambda: slpd.draw_demo_slide("x.tiff", side_px=510), "must be a multiple"),
    ],
)
def test_contradictions_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def numbers_of_the_front_door():
    """Each argument of a number, by its function; what has no bounds of its own is listed here."""
    for name in slpd.__all__:
        function = getattr(slpd, name)
        if not callable(function) or function is slpd.default_config:
            continue
        for argument, parameter in inspect.signature(function).parameters.items():
            if {"int", "float"} & {*re.findall(r"\w+", str(parameter.annotation))} and (name, argument) not in {
                ("Slide", "mpp"),  # an implausible one is the slide's error
                ("draw_demo_slide", "side_px"),  # a multiple of 4
            }:
                yield function, argument


def problem_of(function, **arguments) -> str:
    """Call a function by dummies, so that little but a check of its arguments can succeed; return the error."""
    parameters = inspect.signature(function).parameters.values()
    needed = (parameter for parameter in parameters if parameter.default is parameter.empty)
    dummies = {parameter.name: 1 if parameter.annotation is int else None for parameter in needed}
    if function is slpd.build_patch_encoder:
        dummies["source"] = "none"
    try:
        function(**dummies | arguments)
    except Exception as error:  # of any kind: the test tells the right kind from all others
        return str(error)
    return ""


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "many"])
@pytest.mark.parametrize(("function", "argument"), [*numbers_of_the_front_door()])
def test_no_number_is_negative_nan_infinite_or_a_flag(function, argument, value):
    value = (value,) * 3 if argument in ("mean", "std") else value
    if argument == "mean" and value[0] == -1:
        return  # some publish pixels so
    problem = problem_of(function, **{argument: value})
    assert re.match(rf"{function.__name__}: {argument}.*\(found .+\)$", problem, re.DOTALL), problem


@pytest.mark.parametrize(
    ("function", "argument", "outside", "edges"),
    [
        (slpd.segment_tissue, "thumbnail_mpp", (0.99, 64.1), (1, 64)),
        (slpd.segment_tissue, "closing_um", (-0.1,), (0,)),
        (slpd.segment_tissue, "ink", ("drop",), ("keep",)),
        (slpd.segment_tissue, "mask_origin", ("corner",), ("bounds",)),
        (slpd.segment_tissue, "classes", ("Tumor",), (["Tumor"],)),
        (slpd.draw_overlay, "thumbnail_mpp", (0,), (8.5,)),
        (slpd.select_regions, "size_px", (0, 4096.5), (1, np.int64(4096))),
        (slpd.select_regions, "target_mpp", (0, 0.049, 5.1), (0.05, np.float32(0.5))),
        (slpd.select_regions, "min_tissue_fraction", (-0.01, 1.01), (0, 1)),
        (slpd.select_regions, "edge", ("cut",), ("drop",)),
        (slpd.select_regions, "anchor", ("corner",), ("tissue",)),
        (slpd.build_patch_encoder, "patch_px", (0,), (1,)),
        (slpd.build_patch_encoder, "std", ((0.2, 0, 0.2), (0.2, 0.2), (0.2,) * 4), ([0.2, 0.3, 0.4],)),
        (slpd.build_patch_encoder, "mean", ((0.5,), "0.5"), ((0, 0, 0),)),
        (slpd.build_patch_encoder, "interpolate_offset", (-0.1, 1), (0, 0.99)),
        (slpd.build_patch_encoder, "pooling", ("max",), ("cls_mean",)),
        (slpd.build_patch_encoder, "precision", ("fp8",), ("bf16",)),
        (slpd.load_patch_encoder, "batch_size", (0, "all"), ("auto", 1)),
        (slpd.load_region_encoder, "device", ("gpu",), ("cpu",)),
        (slpd.build_region_encoder, "grid", (0,), (1,)),
        (slpd.build_region_encoder, "seed", (2**32, 1.5), (0, 2**32 - 1)),
        (slpd.embed, "batch_size", (0,), (1, None)),
        (slpd.cluster_embeddings, "matching", ("greedy",), ("nearest",)),
        (slpd.cluster_embeddings, "min_regions", (0,), (1, None)),
        (slpd.nearest_slides, "matching", ("greedy",), ("nearest",)),
        (slpd.Slide, "missing_tiles", ("black",), ("white",)),
    ],
)
def test_arguments_out_of_bounds_are_named_with_the_bounds(function, argument, outside, edges):
    for value in outside:
        problem = problem_of(function, **{argument: value})
        assert re.match(rf"{function.__name__}: {argument}.*\(found .+\)$", problem, re.DOTALL), problem
    for value in edges:
        assert not problem_of(function, **{argument: value}).startswith(f"{function.__name__}: ")


def test_a_drawn_slide_is_that_of_its_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        slpd.draw_demo_slide(tmp_path / f"{name}.tiff", side_px=512, seed=seed)
    contents = [slpd.Slide(tmp_path / f"{name}.tiff").thumbnail(0.5) for name in "abc"]
    np.testing.assert_array_equal(contents[0], contents[1])
    assert (contents[0] != contents[2]).any()


def test_a_slide_without_a_patient_is_named():
    embeddings = {name: np.zeros((4, 3), np.float32) for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"patients: none is given for slide b; give one per slide, or None"):
        slpd.cluster_embeddings(embeddings, n_prototypes=2, patients={"a": "p"})
