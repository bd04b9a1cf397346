"""The patch encoder: seeded or imported strictly, from wherever its weights are published, with its metadata."""

import dataclasses
import hashlib
import json
import math
from argparse import Namespace

import httpx2
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import errors
from safetensors.torch import save_file
from torch.nn import functional

from slpd_core import artifacts, config
from slpd_core.encoders import hub, pretrained_weights, vit
from slpd_core.encoders import patch_encoder as encoders
from slpd_core.encoders.patch_encoder_file import read_patch_encoder
from slpd_core.encoders.vit_inference import forward_pooled
from slpd_core.pretraining import patch_encoder

OWN_MEAN, OWN_STD = [0.7, 0.6, 0.65], [0.2, 0.25, 0.3]
# What the authors of large pathology encoders pass to timm.create_model, on a small one.
UNI_LIKE = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "init_values": 1e-5, "reg_tokens": 4}


@pytest.fixture
def section(settings):
    """A tiny ViT for patches of 64 px."""
    return settings.patch_encoder.cohort_encoder.model_copy(
        update={"source": "random", "name": "test_vit", "patch_px": 64}
    )


def imported(section, path, **changed):
    own = {"source": "timm", "weights": str(path), "input_px": 64, "mean": OWN_MEAN, "std": OWN_STD}
    return type(section)(**section.model_dump() | own | changed)


def named(section, name, **changed):
    return type(section)(**section.model_dump() | {"source": "timm", "name": name} | changed)


def published(seed=0, **arguments):
    """A state dict as timm publishes it: positions of 160 px pictures, a classifier's head."""
    torch.manual_seed(seed)
    return timm.create_model("test_vit", num_classes=10, **arguments).state_dict()


@pytest.fixture
def made(tmp_path):
    """Run the stage; gives its tensors and metadata."""

    def made(section, seed=1):
        patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=seed)
        return artifacts.read_weights(tmp_path / "w.safetensors")

    return made


@pytest.fixture
def folder(tmp_path):
    """Write a timm model's folder as the hub has it, without its head; gives the folder."""

    def folder(state, said=None, arguments=None, name="m", weights="model.safetensors"):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        said = {"mean": OWN_MEAN, "std": OWN_STD, "input_size": [3, 96, 96]} if said is None else said
        found = {"architecture": "test_vit", "num_classes": 0, "model_args": arguments or {}, "pretrained_cfg": said}
        (place / "config.json").write_text(json.dumps(found))
        state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
        (save_file if weights.endswith("safetensors") else torch.save)(state, place / weights)
        return place

    return folder


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Put files into the hub's cache of an offline machine, as a repository's."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def cached(repository, place):
        entry = cache / f"models--{repository.replace('/', '--')}"
        (entry / "refs").mkdir(parents=True)
        (entry / "refs" / "main").write_text("0" * 40)
        (entry / "snapshots").mkdir()
        (entry / "snapshots" / ("0" * 40)).symlink_to(place)

    return cached


def test_without_a_source_nothing_is_written(tmp_path, section):
    section = named(section, "test_vit", source=None)
    with pytest.raises(ValueError, match=r"patch_encoder\.source: null(?s:.*)source: hipt(?s:.*)source: random"):
        patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=1)
    assert not [*tmp_path.iterdir()]


def test_random_weights_depend_on_the_seed_alone(tmp_path, section):
    read = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=seed)
        read.append(artifacts.read_weights(tmp_path / "w.safetensors")[0]["patch_embed.proj.weight"])
    np.testing.assert_array_equal(read[0], read[1])
    assert (read[0] != read[2]).any()


def test_making_weights_leaves_the_global_generator_alone(section):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    encoders.build_random_vit(section.name, section.patch_px)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_loaded_is_what_was_made(tmp_path, section):
    patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=1)
    model, meta = read_patch_encoder(tmp_path / "w.safetensors")
    made = encoders.build_random_vit(section.name, section.patch_px).eval()
    assert not model.training
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(pixels), made(pixels))
        assert model(pixels).shape == (2, meta["token_dim"])
    assert meta["mean"] == [0.5, 0.5, 0.5]
    assert (meta["name"], meta["patch_px"], meta["source"]) == ("test_vit", 64, "random")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "nested.pth"])
def test_local_weights_are_imported(tmp_path, section, suffix):
    state = published()
    path = tmp_path / f"published{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state} if suffix == "nested.pth" else state, path)
    patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=imported(section, path), seed=1)
    tensors, meta = artifacts.read_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"].numpy())
    assert tensors["pos_embed"].shape == (1, 17, 64)  # resampled from the 10 x 10 of 160 px
    assert not [key for key in tensors if key.startswith("head.")]
    assert json.loads(meta["source"]) == "timm"


def test_positions_of_the_same_grid_are_kept(tmp_path, section):
    state = published()
    torch.save(state, tmp_path / "p.pth")
    same = imported(section, tmp_path / "p.pth", input_px=None)
    patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=same, seed=1)
    tensors, _ = artifacts.read_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["pos_embed"], state["pos_embed"].numpy())


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"reg_tokens": 4, "no_embed_class": True}])
def test_only_the_patches_positions_are_resampled(options):
    model = timm.create_model("test_vit", num_classes=0, img_size=64, **options)
    old = timm.create_model("test_vit", num_classes=0, img_size=96, **options).pos_embed.detach()
    prefix = old.shape[1] - 36  # [CLS] and registers, where they have positions
    found = vit.resample_positions(old, model)
    assert prefix == (0 if "no_embed_class" in options else 1 + options.get("reg_tokens", 0))
    torch.testing.assert_close(found[:, :prefix], old[:, :prefix], rtol=0, atol=0)
    grid = old[:, prefix:].reshape(1, 6, 6, 64).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, prefix:], expected.flatten(2).transpose(1, 2))
    assert found.shape == model.pos_embed.shape


def broken(state, kind):
    if kind == "missing":
        del state["norm.weight"]
    elif kind == "unexpected":
        state["extra.weight"] = torch.ones(1)
    elif kind == "positions":
        state["pos_embed"] = torch.ones(1, 90, 64)  # no square grid
    else:
        state["norm.weight"] = torch.ones(3)
    return state


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("missing", r"missing \[norm.weight\]"),
        ("unexpected", r"unexpected \[extra.weight\]"),
        ("shape", r"other shape \[norm.weight\]"),
        ("positions", r"other shape \[pos_embed\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, section, kind, what):
    torch.save(broken(published(), kind), tmp_path / "p.pth")
    with pytest.raises(ValueError, match=rf"p\.pth does not fit test_vit: .*{what}"):
        patch_encoder.run(weights_path=tmp_path / "w", section=imported(section, tmp_path / "p.pth"), seed=1)
    assert not (tmp_path / "w").exists()


def test_weights_of_another_kind_of_model_are_named(tmp_path, section):
    torch.save(published(), tmp_path / "p.pth")
    other = imported(section, tmp_path / "p.pth").model_copy(update={"name": "test_vit_relpos"})
    with pytest.raises(ValueError, match=r"does not fit test_vit_relpos: missing .*rel_pos"):
        patch_encoder.run(weights_path=tmp_path / "w", section=other, seed=1)


def test_the_users_own_safetensors_are_never_to_be_deleted(tmp_path, section):
    path = tmp_path / "p.safetensors"
    save_file(published(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*p\.safetensors.*download it again") as caught:
        patch_encoder.run(weights_path=tmp_path / "w", section=imported(section, path), seed=1)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_of_another_precision_are_made_float32(tmp_path, section, made, dtype, suffix):
    state = {key: tensor.to(dtype) for key, tensor in published().items()}
    (save_file if suffix == ".safetensors" else torch.save)(state, tmp_path / f"p{suffix}")
    tensors, _ = made(imported(section, tmp_path / f"p{suffix}"))
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(tensors["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"].float())


@pytest.mark.parametrize("source", ["timm", "hipt"])
def test_missing_weights_say_how_to_get_them(tmp_path, section, source):
    gone = imported(section, tmp_path / "gone.pth", source=source)
    with pytest.raises(FileNotFoundError, match=r"patch_encoder\.weights: no file .*download"):
        patch_encoder.run(weights_path=tmp_path / "w", section=gone, seed=1)


class Harmful:
    """Would run code if a reader unpickled it freely."""

    def __reduce__(self):
        return (eval, ("1 + 1",))


@pytest.mark.parametrize(
    "content",
    [Harmful(), [1, 2], {"epoch": 3}, {3: torch.ones(1)}],
    ids=["code", "list", "no tensors", "no names"],
)
@pytest.mark.parametrize("source", ["timm", "hipt"])
def test_a_file_that_is_no_state_dict_is_refused_unread(tmp_path, section, content, source):
    torch.save(content, tmp_path / "p.pth")
    found = imported(section, tmp_path / "p.pth", source=source)
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*p\.pth"):
        patch_encoder.run(weights_path=tmp_path / "w", section=found, seed=1)


def test_the_fingerprint_covers_what_the_weights_come_from(tmp_path, section):
    def fingerprint(section, seed=1):
        patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=seed)
        return artifacts.read_weights(tmp_path / "w.safetensors")[1]["fingerprint"]

    torch.save(published(0), tmp_path / "p.pth")
    local = imported(section, tmp_path / "p.pth")
    first = fingerprint(local)
    assert first == fingerprint(local, seed=2)
    torch.save(published(1), tmp_path / "p.pth")
    assert fingerprint(local) != first
    assert fingerprint(section, seed=1) != fingerprint(section, seed=2)


def test_foreign_weights_are_not_taken_for_ours(tmp_path):
    save_file(published(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: .*from elsewhere: it carries no checksum; delete the file"):
        read_patch_encoder(tmp_path / "w.safetensors")
    artifacts.write_weights(tmp_path / "w.safetensors", {"x": np.ones(1)}, {"stage": "pretrain"})
    with pytest.raises(ValueError, match=r"lacks the metadata \['name'.*patch_encoder\.weights"):
        read_patch_encoder(tmp_path / "w.safetensors")


def test_an_encoder_that_takes_no_patches_is_refused():
    with pytest.raises(ValueError, match=r"patch_encoder\.name: 'resnet18' takes no patches of 64 px .*name a ViT"):
        vit.build_vit("resnet18", 64)


def test_an_unknown_architecture_names_close_ones(section):
    with pytest.raises(
        ValueError, match=r"timm has no model 'vit_smal_patch16_224'; close ones: vit_small_patch16_224"
    ):
        vit.build_vit("vit_smal_patch16_224", 256)


def test_the_papers_encoder_gives_tokens_of_384():
    model = vit.build_vit("vit_small_patch16_224", 256)
    assert model.num_features == 384
    assert model.pos_embed.shape == (1, 257, 384)


# HIPT: a DINO checkpoint, and the published model written out from its definition


def dino_vit(dim, depth, side, seed):
    """A state dict of DINO's ViT/16 with weights that let every part be felt."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, std=0.05, mean=0.0):
        return torch.randn(shape, generator=generator) * std + mean

    state = {
        "cls_token": normal(1, 1, dim, std=0.5),
        "pos_embed": normal(1, 1 + side * side, dim, std=0.5),
        "patch_embed.proj.weight": normal(dim, 3, 16, 16),
        "patch_embed.proj.bias": normal(dim),
    }
    linear = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for block in range(depth):
        for name, shape in linear.items():
            state[f"blocks.{block}.{name}.weight"], state[f"blocks.{block}.{name}.bias"] = (
                normal(*shape),
                normal(shape[0]),
            )
    for norm in (*(f"blocks.{block}.norm{n}" for block in range(depth) for n in (1, 2)), "norm"):
        state[f"{norm}.weight"], state[f"{norm}.bias"] = normal(dim, std=0.1, mean=1.0), normal(dim)
    return state


def dino_checkpoint(teacher, student):
    """The whole of what DINO saves: both networks as its wrappers name them, its optimiser and settings."""

    def wrapped(state):
        own = {f"module.backbone.{key}": tensor for key, tensor in state.items()}
        return own | {"module.head.mlp.0.weight": torch.ones(3, 3), "module.head.last_layer.weight_v": torch.ones(3, 3)}

    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    groups = [{"lr": 1e-6, "betas": (0.9, 0.999), "weight_decay": 0.4, "amsgrad": False, "params": [0]}]
    return {
        "student": wrapped(student),
        "teacher": wrapped(teacher),
        "optimizer": {"state": {0: moments}, "param_groups": groups},
        "epoch": 100,
        "args": Namespace(arch="vit_small", patch_size=16, local_crops_scale=(0.05, 0.4), data_path="/data"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def bicubic_matrix(old, new, scale):
    """(new, old): cubic convolution with A = -0.75 at (i + 1/2) / scale - 1/2, the border's value beyond the border."""
    weights = np.zeros((new, old))
    for i in range(new):
        x = (i + 0.5) / scale - 0.5
        for j in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(x - j)
            inner, outer = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
            weights[i, min(max(j, 0), old - 1)] += inner if d <= 1 else outer
    return weights


def dino_forward(state, x, heads, offset=0.1):
    """[CLS] of DINO's ViT/16, from its definition; positions resampled in numpy."""
    dim = state["cls_token"].shape[-1]
    tokens = functional.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    new, old = tokens.shape[-1], math.isqrt(state["pos_embed"].shape[1] - 1)
    matrix = bicubic_matrix(old, new, (new + offset) / old)
    grid = state["pos_embed"][0, 1:].reshape(old, old, dim).double().numpy()
    positions = torch.from_numpy(np.einsum("ia,jb,abd->ijd", matrix, matrix, grid)).float().reshape(-1, dim)
    x = tokens.flatten(2).transpose(1, 2) + positions
    first = state["cls_token"] + state["pos_embed"][:, :1]
    x = torch.cat((first.expand(len(x), 1, dim), x), dim=1)

    def norm(name, x):
        return functional.layer_norm(x, (dim,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for block in range(sum(key.endswith("attn.qkv.weight") for key in state)):
        at = f"blocks.{block}."
        qkv = linear(at + "attn.qkv", norm(at + "norm1", x)).unflatten(-1, (3, heads, dim // heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * (dim // heads) ** -0.5).softmax(-1)
        x = x + linear(at + "attn.proj", (attention @ v).transpose(1, 2).flatten(2))
        hidden = linear(at + "mlp.fc1", norm(at + "norm2", x))
        x = x + linear(at + "mlp.fc2", hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))
    return norm("norm", x)[:, 0]


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_hipts_checkpoint_is_the_published_model(tmp_path, settings, made):
    teacher = dino_vit(384, 12, 14, seed=1)
    torch.save(dino_checkpoint(teacher, dino_vit(384, 1, 14, seed=2)), tmp_path / "vit256.pth")
    section = settings.patch_encoder.cohort_encoder.model_copy(
        update={"source": "hipt", "weights": str(tmp_path / "vit256.pth")}
    )
    _, meta = made(section)
    model, parsed = read_patch_encoder(tmp_path / "w.safetensors")
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found = forward_pooled(model, x, "cls")
        assert relative(found, dino_forward(teacher, x, heads=6)) < 1e-5
        assert relative(found, dino_forward(teacher, x, heads=6, offset=0.0)) > 1e-4
    assert (parsed["input_px"], parsed["token_dim"], parsed["source"]) == (256, 384, "hipt, another file")
    assert parsed["mean"] == parsed["std"] == [0.5, 0.5, 0.5]
    assert (meta["origin"], meta["interpolate_offset"]) == ("vit256.pth", "0.1")
    assert meta["origin_fingerprint"] == artifacts.file_fingerprint(tmp_path / "vit256.pth")


def test_a_file_is_called_hipts_if_it_is_the_published_one(tmp_path, section, made, monkeypatch):
    """Known by its SHA-256; any other is read alike, but not called so."""
    path = tmp_path / "vit256.pth"
    torch.save(dino_checkpoint(dino_vit(64, 6, 10, seed=1), dino_vit(64, 6, 10, seed=2)), path)
    section = section.model_copy(
        update={"source": "hipt", "model_kwargs": {"depth": 6, "mlp_ratio": 4}, "weights": str(path)}
    )
    sources = []
    for published in ("0" * 64, hashlib.sha256(path.read_bytes()).hexdigest()):
        monkeypatch.setattr(pretrained_weights, "HIPT_SHA256", published)
        sources.append(json.loads(made(section)[1]["source"]))
    assert sources == ["hipt, another file", "hipt"]


def test_a_teacher_alone_is_hipts_too(tmp_path, section, made):
    teacher = dino_vit(64, 6, 10, seed=1)
    torch.save(dino_checkpoint(teacher, dino_vit(64, 6, 10, seed=2)), tmp_path / "whole.pth")
    save_file(teacher, tmp_path / "teacher.safetensors")
    found = [
        made(section.model_copy(update={"source": "hipt", "model_kwargs": plain, "weights": str(tmp_path / name)}))
        for name in ("whole.pth", "teacher.safetensors")
        for plain in [{"depth": 6, "mlp_ratio": 4}]
    ]
    assert found[0][1]["fingerprint"] == found[1][1]["fingerprint"]
    np.testing.assert_array_equal(found[0][0]["blocks.5.attn.qkv.weight"], teacher["blocks.5.attn.qkv.weight"])


def test_a_checkpoint_that_holds_code_beside_its_settings_is_refused(tmp_path, section):
    content = dino_checkpoint(dino_vit(64, 6, 10, seed=1), {})
    content["args"].hook = Harmful()
    torch.save(content, tmp_path / "p.pth")
    harmful = section.model_copy(update={"source": "hipt", "weights": str(tmp_path / "p.pth")})
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*p\.pth: not a whole file of tensors"):
        patch_encoder.run(weights_path=tmp_path / "w", section=harmful, seed=1)


@pytest.mark.parametrize("offset", [0.1, 0.5])
@pytest.mark.parametrize("prefix", [1, 5])
def test_positions_with_an_offset_are_read_where_dino_reads_them(offset, prefix):
    model = timm.create_model("test_vit", num_classes=0, img_size=256, reg_tokens=prefix - 1)
    old = torch.from_numpy(np.random.default_rng(0).normal(size=(1, prefix + 196, 64)).astype(np.float32))
    found = vit.resample_positions(old, model, offset)
    matrix = bicubic_matrix(14, 16, (16 + offset) / 14)
    grid = old[0, prefix:].reshape(14, 14, 64).double().numpy()
    expected = np.einsum("ia,jb,abd->ijd", matrix, matrix, grid).reshape(256, 64)
    np.testing.assert_allclose(found[0, prefix:], expected, atol=1e-5)
    torch.testing.assert_close(found[:, :prefix], old[:, :prefix], rtol=0, atol=0)
    square = old[:, prefix:].reshape(1, 14, 14, 64).permute(0, 3, 1, 2)
    plain = functional.interpolate(square, size=(16, 16), mode="bicubic").flatten(2).transpose(1, 2)
    assert (found[:, prefix:] - plain).abs().max() > 1e-3


def test_golden_positions():
    model = timm.create_model("test_vit", num_classes=0, img_size=256)
    old = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 197, 64)).astype(np.float32))
    found = vit.resample_positions(old, model, 0.1)[0, 1:].reshape(16, 16, 64)
    golden = {(0, 0, 0): 0.27596, (0, 15, 7): 0.86471, (7, 8, 31): 0.39460, (15, 3, 63): 1.58785}
    for place, value in golden.items():
        assert float(found[place]) == pytest.approx(value, abs=1e-4)


# Weights that go by a name


def test_a_folder_brings_its_arguments_size_and_normalisation(section, folder, made, tmp_path):
    state = published(**{**UNI_LIKE, "mlp_layer": timm.layers.SwiGLUPacked}, no_embed_class=True, img_size=96)
    place = folder(state, arguments={"reg_tokens": 4, "no_embed_class": True, "img_size": 96, "init_values": 1e-5})
    given = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "dynamic_img_size": True, "num_classes": 0}
    tensors, _ = made(named(section, f"local-dir:{place}", model_kwargs=given))
    model, meta = read_patch_encoder(tmp_path / "w.safetensors")
    assert (meta["mean"], meta["std"], meta["input_px"], meta["token_dim"]) == (OWN_MEAN, OWN_STD, 96, 64)
    assert (meta["name"], meta["model_kwargs"]) == ("test_vit", UNI_LIKE | {"no_embed_class": True})
    np.testing.assert_array_equal(tensors["pos_embed"], state["pos_embed"])
    own = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU, "no_embed_class": True}
    reference = timm.create_model("test_vit", num_classes=0, img_size=96, **(UNI_LIKE | own)).eval()
    reference.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("head.")})
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(forward_pooled(model, x, "cls"), reference.forward_features(x)[:, 0])


def test_the_same_weights_are_the_same_encoder_wherever_they_lie(section, folder, cached, made, tmp_path):
    state = published(img_size=96)
    place = folder(state)
    cached("lab/encoder", place)
    by_file = imported(section, place / "model.safetensors", input_px=None)
    sources = {
        "hf-hub:lab/encoder": named(section, "hf-hub:lab/encoder"),
        f"local-dir:{place}": named(section, f"local-dir:{place}"),
        "model.safetensors": by_file,
    }
    metas = {origin: made(source)[1] for origin, source in sources.items()}
    assert [meta["origin"] for meta in metas.values()] == list(metas)
    assert len({meta["fingerprint"] for meta in metas.values()}) == 1
    assert len({meta["origin_fingerprint"] for meta in metas.values()}) == 1
    changed = [{"mean": (0.5, 0.5, 0.5)}, {"input_px": 64}, {"pooling": "cls_mean"}, {"patch_px": 128}]
    others = [made(by_file.model_copy(update=change))[1]["fingerprint"] for change in changed]
    assert len({metas["model.safetensors"]["fingerprint"], *others}) == 5
    save_file(published(1, img_size=96), tmp_path / "other.safetensors")
    other = made(imported(section, tmp_path / "other.safetensors", input_px=None))[1]
    assert other["fingerprint"] != metas["model.safetensors"]["fingerprint"]


def test_a_name_of_the_table_is_one_encoder_by_the_hub_and_by_a_file(settings, cached, made, tmp_path):
    """The repository's config.json names other means, which the table goes before; Lunit's weights have this layout."""
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    said = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224]}
    found = {"architecture": "vit_small_patch16_224", "global_pool": "token", "pretrained_cfg": said}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(found))
    save_file(state, tmp_path / "m" / "model.safetensors")
    cached("1aurent/vit_small_patch16_224.lunit_dino", tmp_path / "m")
    ways = {"by_hub": {}, "by_file": {"weights": str(tmp_path / "m" / "model.safetensors")}}
    values = settings.model_dump()
    values["patch_encoder"]["compared"] = {key: {"name": "lunit-vits16"} | own for key, own in ways.items()}
    section = config.load(values).patch_encoder
    (tensors, by_hub), (_, by_file) = (made(section.encoder(key)) for key in ways)
    assert by_hub["fingerprint"] == by_file["fingerprint"]
    assert json.loads(by_hub["mean"]) == json.loads(by_file["mean"]) == [0.70322989, 0.53606487, 0.66096631]
    assert json.loads(by_hub["section"])["name"] == "hf-hub:1aurent/vit_small_patch16_224.lunit_dino"
    np.testing.assert_array_equal(tensors["patch_embed.proj.weight"], state["patch_embed.proj.weight"])


def test_a_repository_with_older_weights_alone_is_read(section, folder, cached, made):
    state = published()
    cached("lab/old", folder(state, weights="pytorch_model.bin"))
    tensors, _ = made(named(section, "hf-hub:lab/old@main"))
    np.testing.assert_array_equal(tensors["norm.weight"], state["norm.weight"])


def test_a_name_timm_knows_brings_its_weights(section, folder, cached, made):
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    place = folder({})
    save_file(state, place / "model.safetensors")
    cached("timm/test_vit.r160_in1k", place)
    for name in ("test_vit", "test_vit.r160_in1k"):
        tensors, meta = made(named(section, name))
        np.testing.assert_array_equal(tensors["pos_embed"], state["pos_embed"])
        known = timm.get_pretrained_cfg(name)
        assert (json.loads(meta["mean"]), json.loads(meta["std"])) == (list(known.mean), list(known.std))
        assert (json.loads(meta["input_px"]), meta["origin"]) == (160, name)


def test_arguments_that_the_named_weights_do_not_fit_are_refused(section, folder, cached, made):
    place = folder({})
    save_file(timm.create_model("test_vit").state_dict(), place / "model.safetensors")
    cached("timm/test_vit.r160_in1k", place)
    with pytest.raises(ValueError, match=r"patch_encoder\.name: test_vit: its weights do not fit .*\{'depth': 7\}"):
        made(named(section, "test_vit", model_kwargs={"depth": 7}))


def test_weights_that_fit_only_in_part_are_refused_by_name_too(section, folder, tmp_path):
    place = folder(broken(published(), "missing"))
    with pytest.raises(ValueError, match=r"patch_encoder\.name: local-dir:.* does not fit test_vit: missing \[norm"):
        patch_encoder.run(weights_path=tmp_path / "w", section=named(section, f"local-dir:{place}"), seed=1)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_repository_that_names_no_normalisation_is_refused(section, folder, made, key):
    said = {"mean": OWN_MEAN, "std": OWN_STD}
    place = folder(published(), said={name: value for name, value in said.items() if name != key})
    with pytest.raises(ValueError, match=rf"patch_encoder\.{key}: null, but local-dir:.* names none; give"):
        made(named(section, f"local-dir:{place}"))
    _, meta = made(named(section, f"local-dir:{place}", **{key: OWN_MEAN}))
    assert json.loads(meta[key]) == OWN_MEAN


def test_a_normalization_of_other_than_three_numbers_is_refused():
    weights = encoders.load_weights("random", "test_vit", patch_px=64)
    weights = dataclasses.replace(weights, publisher_config={"mean": [0.5], "std": [0.5] * 3})
    with pytest.raises(ValueError, match=r"mean: \[0\.5\] are not three numbers"):
        encoders.build_encoder(weights, patch_px=64)


def test_the_settings_normalisation_goes_before_what_the_source_says(section, folder, made, settings):
    """Of a folder, of random weights and of weights that are trained here; each has a mean of its own to offer."""
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    for changed in (named(section, f"local-dir:{folder(published())}", **given), section.model_copy(update=given)):
        _, meta = made(changed)
        assert [json.loads(meta[key]) for key in ("mean", "std")] == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    vit = patch_encoder.select_vit(section.model_copy(update=given), settings.patch_encoder.dino, "cpu")
    assert (vit.mean, vit.std) == (given["mean"], given["std"])


@pytest.mark.parametrize("text", ['{"architectures": ["ViTModel"]}', "[]", "{"])
def test_a_config_of_another_library_says_what_to_do(section, folder, made, text):
    place = folder(published())
    (place / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"names no timm architecture; give the architecture in patch_encoder\.name"):
        made(named(section, f"local-dir:{place}"))


def test_a_folder_without_weights_is_named(section, folder, made):
    place = folder(published())
    (place / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"m has no model\.safetensors or pytorch_model\.bin"):
        made(named(section, f"local-dir:{place}"))


@pytest.mark.parametrize("name", ["test_vit.r99", "vit_small_resnet26d_224"])
def test_a_name_without_weights_says_so(section, made, name):
    with pytest.raises(
        ValueError, match=rf"timm knows no weights of {name}, of {name.split('.')[0]} (test_vit\.r160|no)"
    ):
        made(named(section, name))


def answer(kind, status):
    request = httpx2.Request("GET", "https://huggingface.co/lab/encoder/resolve/main/config.json")
    return kind(f"{status} Client Error.\n\nmore", response=httpx2.Response(status, request=request))


ACCESS = (
    r"huggingface\.co/(lab|timm)/.* accept its terms .*hf auth login.*HF_TOKEN.*hf download .*local-dir:DIR.*weights"
)
CACHE = r"HF_HUB_OFFLINE.*login node first.*hf download (lab|timm)/.*local-dir:DIR"


@pytest.mark.parametrize("name", ["hf-hub:lab/encoder", "test_vit"])
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (answer(errors.GatedRepoError, 403), ACCESS),
        (answer(errors.RepositoryNotFoundError, 401), ACCESS),
        (answer(errors.HfHubHTTPError, 401), ACCESS),
        (answer(errors.HfHubHTTPError, 503), r"the hub fails \(503 Client Error\.\); run snakemake again later"),
        (answer(errors.RevisionNotFoundError, 404), r"not found \(404 Client Error\.\); look at https://huggingface"),
        (errors.LocalEntryNotFoundError("cannot find"), CACHE),
        (errors.OfflineModeIsEnabled("offline"), CACHE),
        (httpx2.ConnectError("no route"), CACHE),
        (ConnectionResetError("reset"), CACHE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_says_what_to_do(section, made, monkeypatch, name, error, remedy):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
    with pytest.raises(RuntimeError, match=rf"^patch_encoder\.name: {name}: .*{remedy}"):
        made(named(section, name))


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("name", ["hf-hub:lab/encoder", "test_vit"])
def test_a_machine_that_is_offline_says_what_to_do(section, made, name):
    with pytest.raises(RuntimeError, match=CACHE):
        made(named(section, name))


# Architectures, sizes and pooling


def test_the_means_of_cls_mean_leave_registers_out(section, made, tmp_path):
    own = section.model_copy(update={"pooling": "cls_mean", "model_kwargs": {"reg_tokens": 4}})
    _, meta = made(own)
    model, parsed = read_patch_encoder(tmp_path / "w.safetensors")
    assert parsed["token_dim"] == json.loads(meta["token_dim"]) == 128
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found, tokens = forward_pooled(model, x, "cls_mean"), model.forward_features(x)
        torch.testing.assert_close(found[:, :64], model(x))
        assert tokens.shape == (2, 1 + 4 + 16, 64)
        torch.testing.assert_close(found[:, 64:], sum(tokens[:, 5 + patch] for patch in range(16)) / 16)
    assert json.loads(made(section)[1]["token_dim"]) == 64


def test_cls_mean_needs_a_cls(section, made):
    own = section.model_copy(update={"pooling": "cls_mean", "model_kwargs": {"global_pool": "avg"}})
    with pytest.raises(ValueError, match=r"patch_encoder\.pooling: cls_mean needs .* 'avg' with a \[CLS\]; set"):
        made(own)


def test_unpooled_encoders_give_their_cls(section, made, tmp_path):
    made(section.model_copy(update={"model_kwargs": {"global_pool": ""}}))
    model, _ = read_patch_encoder(tmp_path / "w.safetensors")
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 64)


def test_a_vit_that_computes_some_of_its_tensors_is_whole(section, made, tmp_path):
    arguments = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    made(named(section, "vit_small_patch16_dinov3", source="random", model_kwargs=arguments))
    model, _ = read_patch_encoder(tmp_path / "w.safetensors")
    random = encoders.build_random_vit("vit_small_patch16_dinov3", 64, model_kwargs=arguments).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x), random(x))


def test_the_encoders_input_may_differ_from_the_patch(section, made):
    _, meta = made(section.model_copy(update={"input_px": 96}))
    assert (json.loads(meta["input_px"]), json.loads(meta["patch_px"])) == (96, 64)


def test_an_input_that_tokens_do_not_divide_is_refused(section, made):
    with pytest.raises(
        ValueError, match=r"patch_encoder\.input_px: 250 is not a multiple of the 16 px .*set it to 240"
    ):
        made(section.model_copy(update={"input_px": 250}))


def test_an_unknown_class_names_close_ones():
    with pytest.raises(ValueError, match=r"model_kwargs\.mlp_layer: timm.layers has no 'SwiGLUPackd'; .*SwiGLUPacked"):
        vit.build_vit("test_vit", 64, {"mlp_layer": "SwiGLUPackd"})


def test_an_unknown_argument_is_named():
    with pytest.raises(
        ValueError, match=r"unexpected keyword argument 'registers'.*correct patch_encoder\.model_kwargs"
    ):
        vit.build_vit("test_vit", 64, {"registers": 4})
