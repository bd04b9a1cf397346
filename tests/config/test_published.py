"""The table of published patch encoders, the settings that follow from a name, and the page that shows it."""

from pathlib import Path

import pytest

from slpd_core import config
from slpd_core.config.published import find_published, published_encoders
from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[2]
ENCODERS = published_encoders()
OF_TIMM = {name: encoder for name, encoder in ENCODERS.items() if encoder.architecture}
UNI2_KWARGS = {
    "patch_size": 14,
    "embed_dim": 1536,
    "depth": 24,
    "num_heads": 24,
    "mlp_ratio": 5.33334,
    "mlp_layer": "SwiGLUPacked",
    "act_layer": "silu",
    "init_values": 1e-5,
    "reg_tokens": 8,
    "no_embed_class": True,
}


def load(**patch_encoder):
    values = read_shipped()
    values["patch_encoder"] |= patch_encoder
    return config.load(values).patch_encoder


def test_each_line_is_whole():
    assert len(OF_TIMM) >= 20
    for name, encoder in ENCODERS.items():
        assert name == name.lower()
        assert "_" not in name  # names of timm have one
        assert encoder.sources
        assert all(source.startswith("https://") for source in encoder.sources)
        of_timm = (encoder.pooling, encoder.input_px, encoder.mean, encoder.std, encoder.token_dim)
        assert all(of_timm) if encoder.architecture else encoder.software and not any(of_timm)


def test_a_name_decides_all_that_is_not_given():
    section = load(name="uni2-h").cohort_encoder
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert section.model_dump(exclude={"weights", "interpolate_offset", "path", "format"}) == imagenet | {
        "source": "timm",
        "name": "hf-hub:MahmoodLab/UNI2-h",
        "model_kwargs": UNI2_KWARGS,
        "patch_px": 256,
        "input_px": 224,
        "pooling": "cls",
    }


def test_what_is_given_goes_before_the_table_and_is_recorded():
    given = {"pooling": "cls", "mean": [0.5] * 3, "model_kwargs": {"drop_rate": 0, "reg_tokens": 2}, "input_px": 448}
    section = load(name="virchow2", weights="w.pth", **given).cohort_encoder
    assert (section.name, section.weights, section.pooling) == ("vit_huge_patch14_224", "w.pth", "cls")
    assert (section.mean, section.input_px) == ((0.5, 0.5, 0.5), 448)
    assert section.std == ENCODERS["virchow2"].std
    assert section.model_kwargs == dict(ENCODERS["virchow2"].model_kwargs) | {"drop_rate": 0, "reg_tokens": 2}


def test_resolved_settings_stand_without_the_table(monkeypatch):
    recorded = load(name="virchow").cohort_encoder.model_dump()
    monkeypatch.setattr("slpd_core.config.patch_encoder.published_encoders", dict)
    monkeypatch.setattr("slpd_core.config.published.published_encoders", dict)
    assert config.PatchEncoderConfig(**recorded).model_dump() == recorded
    assert load(**recorded).cohort_encoder.model_dump() == recorded


def test_a_compared_encoder_inherits_nothing_of_another():
    others = {
        "uni": {"name": "uni2-h"},
        "untrained": {"source": "random"},
        "large": {"name": "virchow", "patch_px": 512},
    }
    own = {"source": "hipt", "weights": "vit256.pth", "patch_px": 128, "mean": [0.1] * 3, "model_kwargs": {"depth": 6}}
    encoders = load(**own, compared=others)
    assert encoders.encoder("uni") == load(name="uni2-h", patch_px=128).cohort_encoder
    assert encoders.encoder("large") == load(name="virchow", patch_px=512).cohort_encoder
    assert encoders.encoder("untrained") == encoders.cohort_encoder.model_copy(update={"source": "random"})
    stated = [encoders.stated_name(name) for name in (None, "uni", "untrained")]
    assert stated == ["vit_small_patch16_224", "uni2-h", "vit_small_patch16_224"]


def test_an_untrained_encoder_may_have_a_published_architecture():
    section = load(name="uni2-h", compared={"untrained": {"source": "random"}}).encoder("untrained")
    assert (section.source, section.name, section.input_px) == ("random", "vit_giant_patch14_224", 224)
    assert section.model_kwargs == UNI2_KWARGS


def test_settings_without_a_published_name_are_as_before():
    section = load().cohort_encoder
    assert (section.source, section.name, section.pooling) == (None, "vit_small_patch16_224", "cls")
    for name in ("hf-hub:lab/encoder", "beit"):
        assert load(name=name, source="timm").cohort_encoder.name == name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "UNI2h"}, ["patch_encoder.name: 'UNI2h'", "close ones: uni2-h", "source: timm and its name in timm"]),
        ({"name": "uni2-h", "source": "hipt"}, ["patch_encoder.weights: null, but source is hipt"]),
        ({"name": "gpfm"}, ["patch_encoder.weights: null", "hf download majiabo/GPFM GPFM.pth"]),
        ({"name": "conch-v1.5"}, ["cannot hold conch-v1.5", "{source: features, path: DIR, format: trident}"]),
        ({"compared": {"x": {"name": "midnight"}}}, ["patch_encoder.compared.x.name: timm cannot hold midnight"]),
        ({"compared": {"x": {"name": ["uni"]}}}, ["patch_encoder.compared.x.name: Input should be a valid string"]),
        ({"name": "hf-hub:lab/encoder"}, ["patch_encoder.name: 'hf-hub:lab/encoder'", "set source to timm"]),
    ],
)
def test_what_cannot_be_says_what_to_do(settings, words):
    with pytest.raises(ValueError, match="settings:") as error:
        load(**settings)
    for word in words:
        assert word in str(error.value)


def test_an_encoder_is_found_by_its_repository_too():
    assert find_published("hf-hub:MahmoodLab/uni@main") == ENCODERS["uni"]
    assert find_published("vit_small_patch16_224") is None


def test_the_page_shows_the_table():
    rows = [line for line in (ROOT / "docs" / "encoders.md").read_text().splitlines() if line.startswith("| `")]
    shown = {cells[1].strip("` "): [cell.strip() for cell in cells[2:-1]] for cells in (row.split("|") for row in rows)}
    assert list(shown) == [*OF_TIMM, *(name for name in ENCODERS if name not in OF_TIMM)]
    for name, encoder in ENCODERS.items():
        weights = f"[{encoder.hub}](https://huggingface.co/{encoder.hub})"
        terms = [encoder.license, "yes" if encoder.gated else "no"]
        if encoder.architecture:
            weights += f", file `{encoder.hub_file}`" if encoder.hub_file else ""
            mpp = ", ".join(f"{value:g}" for value in encoder.mpp) or "not stated"
            assert shown[name] == [weights, f"`{encoder.architecture}`", str(encoder.token_dim), mpp, *terms]
        else:
            assert shown[name] == [weights, encoder.software, *terms]
