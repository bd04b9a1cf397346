"""A look at files of weights that costs no time: what is none, or half of one, is named before any work."""

import zipfile
from pathlib import Path

from slpd_core.artifacts.torch_files import strip_wrappers

PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how files of torch.save before 1.6 begin


def require_weights_file(path: Path, key: str) -> None:
    """Check that a file can be weights, by its first bytes and its end; what it holds is read by the stage.

    key: of the config that led to the file. Raises ValueError saying what the file is instead.
    """
    if (wrong := _describe(path)) is not None:
        raise ValueError(f"{key}: {path} is {wrong}; download the weights again from where their authors publish them")


def read_weights_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a safetensors file's tensors from its header, named as `read_state_dict` names them."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        names = file.keys()
        return {strip_wrappers(name): tuple(file.get_slice(name).get_shape()) for name in names}


def _describe(path: Path) -> str | None:
    """What a file is instead of weights; None where it may be some."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to the weights (git lfs pull fetches them)"
    if head.lstrip()[:1] == b"<":
        return "a web page"
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy"):
                return None
        except SafetensorError as error:
            return f"no whole safetensors file ({error})"
    if head.startswith(b"PK"):
        return None if zipfile.is_zipfile(path) else "the beginning of a file of weights"
    return None if head.startswith(PICKLES) else "no file of torch.save or safetensors"
