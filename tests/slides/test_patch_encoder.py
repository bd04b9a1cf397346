"""The patch encoder: seeded or imported strictly, with its metadata."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from slpd_core import store
from slpd_core.slides import patch_encoder


@pytest.fixture
def section(settings):
    """A tiny ViT for patches of 64 px."""
    return settings.patch_encoder.model_copy(update={"name": "test_vit", "patch_px": 64})


def imported(section, path):
    return section.model_copy(update={"source": "timm", "weights": str(path)})


def published(seed=0):
    """A state dict as timm publishes it: positions of 160 px pictures, a classifier's head."""
    torch.manual_seed(seed)
    return timm.create_model("test_vit", num_classes=10).state_dict()


def test_random_weights_depend_on_the_seed_alone(tmp_path, section):
    read = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=seed)
        read.append(store.read_weights(tmp_path / "w.safetensors")[0]["patch_embed.proj.weight"])
    np.testing.assert_array_equal(read[0], read[1])
    assert (read[0] != read[2]).any()


def test_making_weights_leaves_the_global_generator_alone(section):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    patch_encoder.random_weights(section.name, section.patch_px, 1)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_loaded_is_what_was_made(tmp_path, section):
    patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=1)
    model, meta = patch_encoder.load(tmp_path / "w.safetensors")
    made = patch_encoder.random_weights(section.name, section.patch_px, 1).eval()
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
    tensors, meta = store.read_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"].numpy())
    assert tensors["pos_embed"].shape == (1, 17, 64)  # resampled from the 10 x 10 of 160 px
    assert not [key for key in tensors if key.startswith("head.")]
    assert json.loads(meta["source"]) == "timm"


def test_positions_of_the_same_grid_are_kept(tmp_path, section):
    state = published()
    torch.save(state, tmp_path / "p.pth")
    same = imported(section, tmp_path / "p.pth").model_copy(update={"patch_px": 160})
    patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=same, seed=1)
    tensors, _ = store.read_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["pos_embed"], state["pos_embed"].numpy())


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"reg_tokens": 4, "no_embed_class": True}])
def test_only_the_patches_positions_are_resampled(options):
    model = timm.create_model("test_vit", num_classes=0, img_size=64, **options)
    old = timm.create_model("test_vit", num_classes=0, img_size=96, **options).pos_embed.detach()
    prefix = old.shape[1] - 36  # [CLS] and registers, where they have positions
    found = patch_encoder.resample_positions(old, model)
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
        ("missing", r"missing \['norm.weight'\]"),
        ("unexpected", r"unexpected \['extra.weight'\]"),
        ("shape", r"other shape \['norm.weight'\]"),
        ("positions", r"other shape \['pos_embed'\]"),
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


@pytest.mark.parametrize("kind", ["cut short", "bfloat16"])
def test_the_users_own_safetensors_are_never_to_be_deleted(tmp_path, section, kind):
    path = tmp_path / "p.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in published().items()}, path)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*p\.safetensors .*as float32") as caught:
        patch_encoder.run(weights_path=tmp_path / "w", section=imported(section, path), seed=1)
    assert "delete" not in str(caught.value)


def test_missing_weights_say_how_to_get_them(tmp_path, section):
    with pytest.raises(FileNotFoundError, match=r"patch_encoder\.weights: no file .*download"):
        patch_encoder.run(weights_path=tmp_path / "w", section=imported(section, tmp_path / "gone.pth"), seed=1)


class Harmful:
    """Would run code if a reader unpickled it freely."""

    def __reduce__(self):
        return (eval, ("1 + 1",))


@pytest.mark.parametrize(
    "content",
    [Harmful(), [1, 2], {"epoch": 3}, {3: torch.ones(1)}],
    ids=["code", "list", "no tensors", "no names"],
)
def test_a_file_that_is_no_state_dict_is_refused_unread(tmp_path, section, content):
    torch.save(content, tmp_path / "p.pth")
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*p\.pth"):
        patch_encoder.run(weights_path=tmp_path / "w", section=imported(section, tmp_path / "p.pth"), seed=1)


def test_the_fingerprint_covers_what_the_weights_come_from(tmp_path, section):
    def fingerprint(section, seed=1):
        patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=seed)
        return store.read_weights(tmp_path / "w.safetensors")[1]["fingerprint"]

    torch.save(published(0), tmp_path / "p.pth")
    local = imported(section, tmp_path / "p.pth")
    first = fingerprint(local)
    assert first == fingerprint(local, seed=2)
    torch.save(published(1), tmp_path / "p.pth")
    assert fingerprint(local) != first
    assert fingerprint(section, seed=1) != fingerprint(section, seed=2)


def test_foreign_weights_are_not_taken_for_ours(tmp_path):
    save_file(published(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"lacks the metadata \['name'.*patch_encoder\.weights"):
        patch_encoder.load(tmp_path / "w.safetensors")


def test_an_encoder_that_takes_no_patches_is_refused():
    with pytest.raises(ValueError, match=r"patch_encoder\.name: 'resnet18' takes no patches of 64 px .*name a ViT"):
        patch_encoder.build("resnet18", 64)


def test_an_unknown_architecture_names_close_ones(section):
    with pytest.raises(
        ValueError, match=r"timm has no model 'vit_smal_patch16_224'; close ones: vit_small_patch16_224"
    ):
        patch_encoder.build("vit_smal_patch16_224", 256)


def test_the_papers_encoder_gives_tokens_of_384():
    model = patch_encoder.build("vit_small_patch16_224", 256)
    assert model.num_features == 384
    assert model.pos_embed.shape == (1, 257, 384)
