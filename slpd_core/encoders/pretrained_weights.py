"""Published weights of ViTs: a file, HIPT's checkpoint, a name timm knows, a repository of the Hugging Face hub."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import errors, hf_hub_download
from torch import Tensor

from slpd_core import artifacts, config
from slpd_core.encoders import vit

HUB, FOLDER = config.PatchEncoderConfig.HUB, config.PatchEncoderConfig.FOLDER
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # of a folder, first best
HALF_RGB = (0.5, 0.5, 0.5)
# HIPT's maintainer's word for its weights, though they were trained with ImageNet's; the offset is its ViT's own.
OF_HIPT = {"mean": HALF_RGB, "std": HALF_RGB, "interpolate_offset": 0.1}
HIPT_SHA256 = "6960cd5a8657dc8bb214671aa0c6dbd3f5b698e84386884955836487ddc89e24"  # of the file, as its repository says
TRIAL_PX = 224  # a multiple of the 7, 8, 14, 16 and 32 px that ViTs' tokens cover


@dataclass(frozen=True)
class PretrainedWeights:
    """Tensors, float32, and what is known of them.

    name, model_kwargs: timm's architecture. key: key and value of the config that led to them, for messages.
    origin: file, hub name or timm's name. file_fingerprint: of the file read, "" where timm read it.
    publisher_config: what their publisher states (mean, std, input_size, interpolate_offset), as far as known.
    """

    name: str
    model_kwargs: dict[str, Any]
    state: dict[str, Tensor]
    key: str
    origin: str
    file_fingerprint: str = ""
    publisher_config: Mapping[str, Any] = field(default_factory=dict)


def _in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def load_hipt(
    weights: Path, *, name: str = "vit_small_patch16_224", model_kwargs: Mapping[str, Any] | None = None
) -> PretrainedWeights:
    """Load HIPT's ViT256-16, the teacher of a DINO checkpoint.

    Args:
        weights: Path of vit256_small_dino.pth.
        name: The timm architecture.
        model_kwargs: Further arguments of the architecture.

    Raises:
        ValueError: The file holds no state dict of tensors.
    """
    return _load_file(name, vit.architecture_kwargs(model_kwargs or {}), weights, OF_HIPT)


def is_hipts(path: Path) -> bool:
    """Tell whether a file is HIPT's published vit256_small_dino.pth, byte for byte."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == HIPT_SHA256


def load_timm(
    name: str,
    *,
    weights: Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    input_px: int | None = None,
) -> PretrainedWeights:
    """Load weights of a timm architecture: from the file given, else those published under its name.

    Args:
        name: A name timm knows, hf-hub:OWNER/MODEL or local-dir:DIR.
        weights: Path of a state dict.
        model_kwargs: Further arguments of the architecture.
        input_px: Side of the input images, px.

    Raises:
        ValueError: The name, the arguments or the file are wrong.
        RuntimeError: The hub fails, or refuses access.
        FileNotFoundError: A file of the folder is missing.
    """
    is_published = name.startswith((HUB, FOLDER))
    model_config = _read_config(name) if is_published else {}
    architecture = model_config.get("architecture", name)
    kwargs = vit.architecture_kwargs({**model_config.get("model_args", {}), **(model_kwargs or {})})
    publisher_config = model_config.get("pretrained_cfg", model_config)
    if "global_pool" in publisher_config:
        kwargs = vit.architecture_kwargs({"global_pool": publisher_config["global_pool"], **kwargs})
    if not is_published and not weights:
        _require_known(architecture)
    vit.build_vit(architecture, input_px or TRIAL_PX, kwargs, "meta")  # refuses other models before anything is fetched
    if weights:
        return _load_file(architecture, kwargs, weights, publisher_config)
    if not is_published:
        return _load_known(architecture, kwargs)
    path, key = _file_at(name, *WEIGHTS_FILES), f"patch_encoder.name: {name}"
    state = artifacts.read_state_dict(path, key)
    fingerprint = artifacts.file_fingerprint(path)
    return PretrainedWeights(architecture, kwargs, state, key, name, fingerprint, publisher_config)


def native_input_px(weights: PretrainedWeights) -> int:
    """Return the side of the images an encoder was trained with, px: by its positions, else as its publisher states.

    Raises:
        ValueError: Neither says so.
    """
    side = vit.native_img_size(weights.state, vit.build_vit(weights.name, TRIAL_PX, weights.model_kwargs, "meta"))
    known = timm.get_pretrained_cfg(weights.name)
    height, width = weights.publisher_config.get("input_size", known.input_size if known else (3, 0, 1))[-2:]
    if side is None and height != width:
        raise ValueError(
            f"patch_encoder.input_px: null, but {weights.origin} does not say the side of its square pictures; give it"
        )
    return side or int(height)


def _load_file(
    name: str, model_kwargs: dict[str, Any], path: Path, publisher_config: Mapping[str, Any]
) -> PretrainedWeights:
    key = f"patch_encoder.weights: {path}"
    return PretrainedWeights(
        name,
        model_kwargs,
        artifacts.read_state_dict(path, "patch_encoder.weights"),
        key,
        path.name,
        artifacts.file_fingerprint(path),
        publisher_config,
    )


def _require_known(name: str) -> None:
    """Raise ValueError where timm knows the architecture but no weights by this name."""
    architecture = name.split(".")[0]
    names = timm.list_pretrained(f"{architecture}.*")
    if timm.is_model(name) and name not in (*names, architecture if names else ""):
        raise ValueError(
            f"patch_encoder.name: timm knows no weights of {name}, of {architecture} {', '.join(names) or 'none'}; "
            f"name one, give patch_encoder.weights, or a repository of the hub as {HUB}owner/model"
        )


def _load_known(name: str, model_kwargs: dict[str, Any]) -> PretrainedWeights:
    """The weights timm knows by this name, from its cache or fetched."""
    # num_classes is left as published: timm then loads strictly.
    key = f"patch_encoder.name: {name}"
    known = timm.get_pretrained_cfg(name)
    with _saying_what_to_do(key, (known and known.hf_hub_id) or ""):
        try:
            model: Any = timm.create_model(name, pretrained=True, **vit.resolve_layer_classes(model_kwargs))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{key}: its weights do not fit patch_encoder.model_kwargs {model_kwargs} ({reason})"
            ) from error
    return PretrainedWeights(
        name, model_kwargs, _in_float32(model.state_dict()), key, name, publisher_config=model.pretrained_cfg
    )


def _read_config(name: str) -> dict[str, Any]:
    """config.json of a timm model on the hub or in a folder: architecture, model_args, pretrained_cfg."""
    path = _file_at(name, "config.json")
    try:
        model_config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(model_config["architecture"], str):
            return model_config
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise ValueError(
        f"patch_encoder.name: the config.json of {name} names no timm architecture; give the architecture in "
        "patch_encoder.name and the file in patch_encoder.weights"
    )


def _file_at(name: str, *files: str) -> Path:
    """The first of the files that a hub's repository or a folder has; fetched into the hub's cache unless there.

    Raises FileNotFoundError when a folder has none, RuntimeError when the hub gives none.
    """
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
        for file in files:
            if (folder / file).is_file():
                return folder / file
        raise FileNotFoundError(
            f"patch_encoder.name: {folder} has no {' or '.join(files)}; give the whole folder of a timm model"
        )
    repository, _, revision = name.removeprefix(HUB).partition("@")
    with _saying_what_to_do(f"patch_encoder.name: {name}", repository):
        for file in files[:-1]:
            try:
                return Path(hf_hub_download(repository, file, revision=revision or None))
            except errors.EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, files[-1], revision=revision or None))


@contextmanager
def _saying_what_to_do(key: str, repository: str) -> Iterator[None]:
    """Turn what goes wrong on the way to the hub into what to do about it.

    repository: owner/model on the hub, "" where the weights lie elsewhere.
    """
    page = f"https://huggingface.co/{repository}" if repository else "their authors' page"
    fetch = f"`hf download {repository} --local-dir DIR`" if repository else "a browser"
    elsewhere = (
        f"or fetch them on another machine by {fetch} and set patch_encoder.name to {FOLDER}DIR, or "
        "patch_encoder.weights to the file (with its architecture as the name)"
    )
    try:
        yield
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError, errors.HFValidationError) as error:
        raise RuntimeError(f"{key}: not found ({_first_line(error)}); look at {page} for what there is") from error
    except errors.HfHubHTTPError as error:
        if not isinstance(error, errors.RepositoryNotFoundError) and error.response.status_code not in (401, 403):
            raise RuntimeError(
                f"{key}: the hub fails ({_first_line(error)}); run snakemake again later, {elsewhere}"
            ) from error
        raise RuntimeError(
            f"{key}: no access to the weights, or a misspelt name ({_first_line(error)}); open {page} and accept its "
            "terms while logged in, then run `hf auth login` on this machine or set HF_TOKEN to a token that may read "
            f"gated models; {elsewhere}"
        ) from error
    except (OSError, errors.HTTPError) as error:  # LocalEntryNotFoundError, OfflineModeIsEnabled, lost connections
        raise RuntimeError(
            f"{key}: the weights are not in this machine's cache and cannot be fetched ({_first_line(error)}): is it "
            "offline, or HF_HUB_OFFLINE set? On a cluster fetch them on the login node first, into the HF_HOME that "
            "the jobs see, by "
            + (f"`hf download {repository}`" if repository else "timm.create_model(NAME, pretrained=True)")
            + f"; {elsewhere}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
