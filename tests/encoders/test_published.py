"""timm builds each architecture of the table, and loads files of its layout as the pipeline does."""

import pytest
import timm
import torch

from slpd_core.config.published import published_encoders, resolve_encoder
from slpd_core.encoders import vit
from slpd_core.encoders.patch_encoder import build_encoder, load_weights, token_dim
from slpd_core.encoders.plain_vit import PlainVit, describe_plain_vit
from slpd_core.encoders.vit_inference import forward_pooled

OF_TIMM = {name: encoder for name, encoder in published_encoders().items() if encoder.architecture}
# Millions of parameters as other registries state them.
PARAMETERS = {
    "uni": 303.4,
    "uni2-h": 681.4,
    "virchow": 631.2,
    "virchow2": 631.2,
    "h-optimus-0": 1134,
    "h-optimus-1": 1134,
    "h0-mini": 85.7,
    "gigapath": 1134,
    "gigapath-flash": 21.7,
    "lunit-vits8": 21.7,
    "phikon": 85.8,
    "gpfm": 303.2,
}
SETTINGS = dict.fromkeys(("source", "weights", "input_px", "pooling", "mean", "std")) | {"model_kwargs": {}}


@pytest.mark.parametrize("name", OF_TIMM)
def test_the_architecture_has_the_published_tokens_and_size(name):
    encoder = OF_TIMM[name]
    model = vit.build_vit(encoder.architecture, encoder.input_px, encoder.model_kwargs, "meta")
    assert token_dim(model, encoder.pooling) == encoder.token_dim
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS.get(name, millions), rel=2e-3)
    images = torch.empty((1, 3, encoder.input_px, encoder.input_px), device="meta")
    side = encoder.input_px // vit.patch_stride(model)
    assert model.forward_features(images).shape == (1, model.num_prefix_tokens + side**2, model.embed_dim)


@pytest.mark.parametrize(("name", "n_tokens"), [("lunit-vits16", 197), ("kaiko-vits8", 785), ("gigapath-flash", 197)])
def test_a_file_of_the_layout_makes_timms_own_tokens(name, n_tokens, tmp_path):
    encoder = OF_TIMM[name]
    kwargs = vit.resolve_layer_classes(encoder.model_kwargs)
    torch.manual_seed(0)
    reference = timm.create_model(encoder.architecture, num_classes=0, **kwargs).eval()
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    section = resolve_encoder(SETTINGS | {"name": name, "weights": str(tmp_path / "weights.pth")})
    weights = load_weights(
        section["source"], section["name"], path=section["weights"], model_kwargs=section["model_kwargs"]
    )
    settings = {key: section[key] for key in ("input_px", "pooling", "mean", "std")}
    model, meta = build_encoder(weights, **settings)
    assert (meta["mean"], meta["token_dim"]) == (list(encoder.mean), encoder.token_dim)
    images = torch.randn((1, 3, 224, 224))
    plain = PlainVit(model.state_dict(), **describe_plain_vit(model.eval()))
    with torch.inference_mode():
        assert plain.forward_features(images).shape[1] == n_tokens
        torch.testing.assert_close(forward_pooled(plain, images, "cls"), reference(images), rtol=0, atol=1e-5)


def test_an_unknown_architecture_names_the_encoders_of_the_table():
    with pytest.raises(ValueError, match=r"timm has no model 'uni_2h'; close ones: uni2-h, "):
        vit.build_vit("uni_2h", 224)
