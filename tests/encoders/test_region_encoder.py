"""The region encoder is ViT4096-256 of the paper, key by key and number by number."""

from functools import partial

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from slpd_core import artifacts
from slpd_core.encoders import region_encoder
from slpd_core.encoders.region_encoder import RegionEncoder
from tests.fixtures.pretraining import build_student_teacher
from tests.fixtures.region_encoder import embed_plainly, save_published


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return RegionEncoder(384, 192, 6, 6, 14).eval()


def test_its_size_and_keys_are_the_published_ones(paper):
    state = paper.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 2_781_504
    assert len(state) == 78
    assert state["pos_embed"].shape == (1, 197, 192)
    assert {key.split(".")[0] for key in state} == {"cls_token", "pos_embed", "phi", "blocks", "norm"}
    assert state["phi.0.weight"].shape == (192, 384)


def test_it_computes_what_timms_transformer_computes(paper):
    """timm's ViT on the tokens after phi, at its own grid, is the oracle of blocks, norm and [CLS]."""
    oracle = VisionTransformer(
        img_size=14,
        patch_size=1,
        in_chans=192,
        num_classes=0,
        embed_dim=192,
        depth=6,
        num_heads=6,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    state = {key: value for key, value in paper.state_dict().items() if not key.startswith("phi")}
    with torch.no_grad():
        state["patch_embed.proj.weight"], state["patch_embed.proj.bias"] = (
            torch.eye(192)[:, :, None, None],
            torch.zeros(192),
        )
        oracle.load_state_dict(state)
        tokens = torch.randn(2, 14, 14, 384)
        expected = oracle(paper.phi(tokens).permute(0, 3, 1, 2))
        torch.testing.assert_close(paper(tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grid", [6, 14, 16])
def test_any_grid_gives_an_embedding(paper, grid):
    with torch.no_grad():
        assert paper(torch.randn(2, grid, grid, 384)).shape == (2, 192)


def test_positions_of_the_own_grid_are_as_learned_and_others_are_resampled(paper):
    assert paper.interpolate_positions(14, 14) is paper.pos_embed
    ramp = RegionEncoder(4, 6, 1, 1, 8)
    with torch.no_grad():
        rows = torch.arange(8.0).repeat_interleave(8)
        ramp.pos_embed[0, 1:] = rows[:, None]
        resized = ramp.interpolate_positions(16, 16)[0, 1:, 0].view(16, 16)
    assert torch.equal(ramp.interpolate_positions(16, 16)[:, 0], ramp.pos_embed[:, 0])
    torch.testing.assert_close(resized[4:-4, 3], (torch.arange(4.0, 12) + 0.5) * 8 / 16.1 - 0.5, atol=0.05, rtol=0)


@pytest.mark.parametrize("grid", [6, 14, 16])
def test_it_is_the_published_model_written_out(paper, grid):
    tokens = torch.randn(2, grid, grid, 384, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = embed_plainly(paper.state_dict(), tokens)
    with torch.no_grad():
        found = paper(tokens.float()).double()
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.fixture
def published(paper, tmp_path):
    """HIPT's checkpoint as its authors save it."""
    return save_published(paper, tmp_path / "h.pth")


def test_a_run_may_begin_with_the_published_weights(paper, published, section):
    shape = {"embed_dim": 192, "depth": 6, "n_heads": 6, "global_crop_size": 14, "init_from": str(published)}
    networks = build_student_teacher(section.model_copy(update=shape), 384, 1, "cpu")
    for network in (networks.student, networks.teacher):
        for name, tensor in network.encoder.state_dict().items():
            assert torch.equal(tensor, paper.state_dict()[name])


def test_a_run_may_begin_with_an_earlier_ones_encoder(section, tmp_path):
    earlier = build_student_teacher(section, 8, 7, "cpu").teacher.encoder
    region_encoder.write_region_encoder(tmp_path / "e.safetensors", earlier, artifacts.provenance("pretrain", 1, {}))
    changed = section.model_copy(update={"init_from": str(tmp_path / "e.safetensors")})
    found = build_student_teacher(changed, 8, 1, "cpu").student.encoder
    assert torch.equal(found.pos_embed, earlier.pos_embed)


def test_an_encoder_of_another_shape_is_refused(published, section, tmp_path):
    with pytest.raises(ValueError, match=r"init_from: .*h\.pth is no region encoder .*'embed_dim': 24.*set embed_dim"):
        build_student_teacher(section.model_copy(update={"init_from": str(published)}), 384, 1, "cpu")
    with pytest.raises(FileNotFoundError, match=r"pretrain\.init_from: no file .*none\.pth; give HIPT's"):
        build_student_teacher(section.model_copy(update={"init_from": str(tmp_path / "none.pth")}), 384, 1, "cpu")


def test_positions_matter(paper):
    with torch.no_grad():
        tokens = torch.randn(1, 14, 14, 384)
        encoder = RegionEncoder(384, 192, 6, 6, 14).eval()
        assert (encoder(tokens) - encoder(tokens.flip(1))).abs().max() > 1e-4


def test_stochastic_depth_drops_whole_branches_while_training_only():
    torch.manual_seed(0)
    block = region_encoder.Block(8, 2, 0.5)
    x = torch.randn(400, 3, 8)
    kept = (block.train()(x) != x).flatten(1).any(1).float().mean()
    assert 0.6 < kept < 0.9  # 1 - 0.5 * 0.5
    assert torch.equal(block.eval()(x), block(x))


def test_stochastic_depth_keeps_a_branchs_expectation():
    """A branch is dropped, or kept and divided by the share of kept ones: on average it is itself."""
    torch.manual_seed(0)
    block = region_encoder.Block(8, 2, 0.25).train()
    branch = torch.randn(1, 3, 8).expand(8000, 3, 8)
    dropped = block._drop(branch)
    zero, kept = (torch.isclose(dropped, branch * factor).flatten(1).all(1) for factor in (0, 1 / 0.75))
    assert (zero | kept).all()
    assert kept.float().mean() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(dropped.mean(0), branch[0], atol=0.0, rtol=0.03)


def test_stochastic_depth_grows_from_block_to_block():
    rates = [block.drop_path for block in RegionEncoder(8, 24, 5, 2, 3, drop_path=0.2).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [block.drop_path for block in RegionEncoder(8, 24, 2, 2, 3).blocks] == [0, 0]


def test_an_encoder_comes_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    encoder = RegionEncoder(8, 24, 2, 2, 3)
    region_encoder.write_region_encoder(tmp_path / "e.safetensors", encoder, {"fingerprint": "f"})
    back, meta = region_encoder.read_region_encoder(tmp_path / "e.safetensors")
    tokens = torch.randn(2, 4, 4, 8)
    with torch.no_grad():
        np.testing.assert_array_equal(back(tokens), encoder.eval()(tokens))
    assert (meta["fingerprint"], meta["token_dim"], meta["grid"]) == ("f", "8", "3")


@pytest.mark.parametrize("change", ["metadata", "weights", "shape"])
def test_weights_of_another_kind_are_named_with_the_remedy(tmp_path, change):
    encoder, path = RegionEncoder(8, 24, 2, 2, 3), tmp_path / "e.safetensors"
    region_encoder.write_region_encoder(path, encoder, {"fingerprint": "f"})
    tensors, meta = artifacts.read_weights(path)
    if change == "metadata":
        del meta["grid"]
    elif change == "weights":
        tensors = {"patch_embed.proj.weight": np.zeros((4, 4), np.float32)}
    else:
        meta["grid"] = "4"
    artifacts.write_weights(path, tensors, meta)
    with pytest.raises(ValueError, match=r"e\.safetensors: weights, but not those of a region encoder .*delete"):
        region_encoder.read_region_encoder(path)
