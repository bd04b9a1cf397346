"""The fast encoder gives what timm's own forward gives, whatever the ViT is made of."""

import copy
import json

import pytest
import timm
import torch
from timm.layers import GluMlp, SwiGLU, SwiGLUPacked

from slpd_core.encoders import frozen_layers, plain_vit, vit_inference

MEAN, STD = (0.6, 0.5, 0.7), (0.2, 0.25, 0.3)
MODELS = {
    "plain": ("test_vit", {}),
    "average, register, LayerScale": ("test_vit2", {}),
    "attention pooling": ("test_vit3", {}),
    "RMS norm": ("test_vit4", {}),
    "registers": ("test_vit", {"reg_tokens": 4, "no_embed_class": True}),
    "LayerScale and SwiGLU": ("test_vit", {"init_values": 0.3, "mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}),
    "norms of query and key": ("test_vit", {"qk_norm": True, "qkv_bias": False}),
    "norms inside": ("test_vit", {"scale_attn_norm": True, "scale_mlp_norm": True}),
    "pre-norm": ("test_vit", {"pre_norm": True, "dynamic_img_size": False}),
    "no positions, no final norm": ("test_vit", {"pos_embed": "none", "final_norm": False}),
    "average": ("test_vit", {"global_pool": "avg"}),
    "two blocks in parallel": ("test_vit", {"block_fn": timm.models.vision_transformer.ParallelScalingBlock}),
}
FALLEN_BACK = ("two blocks in parallel", "eva")
OF_TIMM = (*FALLEN_BACK, "attention pooling", "RMS norm")  # models that are not built without timm


def build(name, arguments):
    """A seeded model for patches of 64 px whose weights, biases and scales all matter."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, img_size=64, **arguments).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def pixels():
    """Patches that are alike but for their noise, as those of a slide are."""
    torch.manual_seed(1)
    coarse = torch.rand(24, 3, 8, 8) * 120 + torch.rand(1, 3, 8, 8) * 120
    return torch.nn.functional.interpolate(coarse, size=64).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def plain(model, pixels, pooling):
    normalised = (pixels / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.inference_mode():
        return vit_inference.forward_pooled(model, normalised.permute(0, 3, 1, 2), pooling)


def fast(model, pixels, pooling, precision, **options):
    encoder = vit_inference.optimize_for_inference(
        copy.deepcopy(model), mean=MEAN, std=STD, pooling=pooling, precision=precision, **options
    )
    with torch.inference_mode():
        return encoder(pixels)


def relative_error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def centred_cosine(found, wanted):
    """Median cosine of the tokens with the mean token removed: what tells patches of a slide apart."""
    pair = found - found.mean(0), wanted - wanted.mean(0)
    return torch.nn.functional.cosine_similarity(*pair).median().item()


@pytest.mark.parametrize("what", [*MODELS, "eva"])
def test_fp32_is_the_plain_forward(what, pixels):
    model = build(*MODELS.get(what, ("eva02_tiny_patch14_224", {"patch_size": 16, "depth": 2})))
    assert plain_vit.is_plain_vit(model) == (what not in FALLEN_BACK)
    found, wanted = fast(model, pixels, "cls", "fp32"), plain(model, pixels, "cls")
    assert found.dtype is torch.float32
    assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("arguments", [{}, {"reg_tokens": 4}], ids=["plain", "registers"])
def test_cls_and_mean_is_the_plain_forward(arguments, pixels):
    model = build("test_vit", arguments)
    found, wanted = fast(model, pixels, "cls_mean", "fp32"), plain(model, pixels, "cls_mean")
    assert found.shape == (24, 128)
    assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("what", [*MODELS, "eva"])
def test_a_vit_without_timm_returns_the_same_bits(what, pixels):
    model = build(*MODELS.get(what, ("eva02_tiny_patch14_224", {"patch_size": 16, "depth": 2})))
    description = plain_vit.describe_plain_vit(model)
    assert (description is None) == (what in OF_TIMM)
    if description:
        own = plain_vit.PlainVit(model.state_dict(), **json.loads(json.dumps(description)))
        for pooling in ("cls", "cls_mean"):
            assert torch.equal(plain(own, pixels, pooling), plain(model, pixels, pooling))
            for precision in ("fp32", "bf16", "fp16"):
                assert torch.equal(fast(own, pixels, pooling, precision), fast(model, pixels, pooling, precision))


@pytest.mark.parametrize(
    "arguments",
    [
        {"act_layer": "quick_gelu"},
        {"act_layer": "gelu_tanh"},
        {"mlp_layer": SwiGLU, "act_layer": "silu"},
        {"dynamic_img_size": False, "reg_tokens": 2, "fc_norm": True},
    ],
    ids=str,
)
def test_activations_gates_and_norms_of_published_vits_need_no_timm(arguments, pixels):
    model = build("test_vit", arguments)
    own = plain_vit.PlainVit(model.state_dict(), **plain_vit.describe_plain_vit(model))
    assert torch.equal(fast(own, pixels, "cls", "fp32"), fast(model, pixels, "cls", "fp32"))


@pytest.mark.parametrize(
    "arguments", [{"act_layer": "relu"}, {"mlp_layer": GluMlp}, {"global_pool": "max"}], ids=lambda value: str(value)
)
def test_a_vit_that_would_return_other_tokens_stays_timms(arguments):
    assert plain_vit.describe_plain_vit(build("test_vit", arguments)) is None


def test_a_plain_vit_whose_tensors_are_missing_is_refused():
    model = build("test_vit", {})
    state, description = model.state_dict(), plain_vit.describe_plain_vit(model)
    del state["blocks.1.attn.proj.weight"]
    with pytest.raises(KeyError, match=r"blocks\.1\.attn\.proj"):
        plain_vit.PlainVit(state, **description)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("what", MODELS)
def test_half_precision_keeps_patches_apart(what, precision, pixels):
    model = build(*MODELS[what])
    found, wanted = fast(model, pixels, "cls", precision), plain(model, pixels, "cls")
    assert relative_error(found, wanted) < 1e-2
    assert centred_cosine(found, wanted) > 0.99


def test_without_packing_nothing_changes(pixels):
    model = build("test_vit", {})
    packed, unpacked = (fast(model, pixels, "cls", "fp32", pack=pack) for pack in (True, False))
    assert relative_error(packed, unpacked) < 1e-5


@pytest.mark.parametrize("pack", [True, False])
def test_weights_are_packed_on_request_alone(pack):
    encoder = vit_inference.optimize_for_inference(build("test_vit", {}), mean=MEAN, std=STD, pack=pack)
    packed = {part.packed for part in encoder.modules() if isinstance(part, frozen_layers.FrozenLinear)}
    assert packed == {pack and frozen_layers.can_pack(torch.ones(1, 1))}


def test_only_the_token_that_is_used_is_computed():
    def last(pooling, **arguments):
        model = build("test_vit", arguments)
        return type(vit_inference.optimize_for_inference(model, mean=MEAN, std=STD, pooling=pooling).model.blocks[-1])

    assert last("cls") is frozen_layers.ClsOnlyBlock
    assert last("cls_mean") is not frozen_layers.ClsOnlyBlock
    assert last("cls", global_pool="avg") is not frozen_layers.ClsOnlyBlock


def test_pixels_lose_nothing_in_bf16():
    levels = torch.arange(256, dtype=torch.uint8)
    centred = levels.to(torch.bfloat16).sub_(frozen_layers.GRAY_OFFSET)
    torch.testing.assert_close(centred.int() + frozen_layers.GRAY_OFFSET, levels.int())
