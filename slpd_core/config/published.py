"""The field's patch encoders by name: published_encoders.toml, and the settings that follow from it."""

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from slpd_core.config.base import Number, Positive, PositiveFloat, Section

TABLE = Path(__file__).with_name("published_encoders.toml")
HUB, FOLDER = "hf-hub:", "local-dir:"  # how names of repositories and of folders begin, as in timm
HUB_PAGE = "https://huggingface.co/"
INPUT_KEYS = ("pooling", "input_px", "mean", "std")
# Settings of one encoder, as config.yaml has them: another published encoder does not inherit them.
OF_ONE_ENCODER: Mapping[str, Any] = {
    "source": None,
    "model_kwargs": {},
    "weights": None,
    "interpolate_offset": None,
    "path": None,
    "format": None,
    **dict.fromkeys(INPUT_KEYS),
}


class PublishedEncoder(Section):
    """A line of the table; what the fields mean is at its top."""

    hub: str
    hub_file: str | None = None
    architecture: str | None = None
    software: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    pooling: Literal["cls", "cls_mean"] | None = None
    input_px: Positive | None = None
    mean: tuple[Number, Number, Number] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    token_dim: Positive | None = None
    mpp: tuple[PositiveFloat, ...] = ()
    license: str
    gated: bool
    sources: tuple[str, ...]

    @property
    def page(self) -> str:
        """Address of the encoder's page, where its terms are."""
        return HUB_PAGE + self.hub


@cache
def published_encoders() -> dict[str, PublishedEncoder]:
    """Read the table of published patch encoders.

    Returns:
        The encoders by name.
    """
    with TABLE.open("rb") as file:
        return {name: PublishedEncoder(**line) for name, line in tomllib.load(file).items()}


def find_published(name: str) -> PublishedEncoder | None:
    """Find an encoder of the table by its name or its repository.

    Args:
        name: As patch_encoder.name.

    Returns:
        The encoder; None if the table has none of this name.
    """
    encoders = published_encoders()
    by_hub = {f"{HUB}{encoder.hub}".lower(): encoder for encoder in encoders.values()}
    return encoders.get(name) or by_hub.get(name.partition("@")[0].lower())


def resolve_encoder(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve the name of a published encoder: it decides the settings that are not given.

    Args:
        settings: Of a patch encoder, by key; null, and empty model_kwargs, are not given.

    Returns:
        The settings with pooling, and with the name that timm knows; source is null where nothing says it.

    Raises:
        ValueError: timm cannot hold the encoder, or not without a file, or the table has none of this name.
    """
    name = settings["name"]
    if settings["source"] == "features":  # the name of an encoder that another tool ran
        return {**settings, "pooling": settings["pooling"] or "cls"}
    encoder = published_encoders().get(name)
    if encoder is None:
        if settings["source"] is None and "_" not in name and not name.startswith((HUB, FOLDER)):
            close = ", ".join(close_names(name)) or "none"
            raise ValueError(
                f"name: {name!r} is no encoder of docs/encoders.md; close ones: {close}. "
                f"For any other ViT give source: timm and its name in timm, {HUB}OWNER/MODEL or {FOLDER}DIR"
            )
        return {**settings, "pooling": settings["pooling"] or "cls"}
    source = settings["source"] or "timm"
    _require_timm(name, encoder, needs_weights=source == "timm" and not settings["weights"])
    of_table = {key: getattr(encoder, key) for key in INPUT_KEYS if settings[key] is None}
    from_hub = source == "timm" and not settings["weights"]
    return {
        **settings,
        **of_table,
        "source": source,
        "name": f"{HUB}{encoder.hub}" if from_hub else encoder.architecture,
        "model_kwargs": {**encoder.model_kwargs, **(settings["model_kwargs"] or {})},
    }


def close_names(name: str) -> list[str]:
    """Find the names of the table that resemble a name.

    Args:
        name: An unknown name.

    Returns:
        Up to three names, the closest first.
    """
    return difflib.get_close_matches(name.lower().replace("_", "-"), published_encoders(), n=3)


def _require_timm(name: str, encoder: PublishedEncoder, *, needs_weights: bool) -> None:
    """Raise ValueError where timm cannot hold the encoder, or cannot read its repository."""
    if encoder.architecture is None:
        raise ValueError(
            f"name: timm cannot hold {name}, which needs {encoder.software}; extract its features with a tool that "
            "can, such as TRIDENT, and set patch_encoder to {source: features, path: DIR, format: trident} "
            "(docs/exports.md)"
        )
    if needs_weights and encoder.hub_file:
        raise ValueError(
            f"weights: null, but timm cannot read {encoder.page}; download its {encoder.hub_file} (`hf download "
            f"{encoder.hub} {encoder.hub_file} --local-dir DIR`) and give its path"
        )
