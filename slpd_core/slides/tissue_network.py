"""Tissue by networks: what a network is, and the mask that it makes of a slide, tile by tile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slpd_core.artifacts.torch_files import read_torch
from slpd_core.slides.segmentation import clean_mask
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.reader import Slide

if TYPE_CHECKING:  # a tissue job without a network imports no torch
    from torch import Tensor, nn

NETWORK_TILE_PX = 512  # side of a tile, of both networks
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TissueNetwork:
    """A network that tells tissue from all else.

    Attributes:
        mpp: um/px of the tiles that it was trained on.
        predict: Maps tiles, RGB float32 (B, 3, side, side) normalized by ImageNet's mean and sd, to logits of the
            classes (B, C, side, side).
        tissue_class: Index of tissue among the classes.
        prepare: What is done to a tile first, uint8 RGB (side, side, 3).
        license: Of the published weights.
    """

    mpp: float
    predict: "Callable[[Tensor], Tensor]"
    tissue_class: int
    license: str
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray


def load_tensors(model: "nn.Module", path: Path, method: str, ignored: str = "") -> None:
    """Load a file of weights into an architecture, and prepare it for inference.

    Args:
        model: The architecture.
        path: Tensors by name, or a checkpoint of Lightning that has them in `state_dict` as {model.name}.
        method: Of tissue, for the error.
        ignored: Beginning of the names that only training needs; "" for none.

    Raises:
        ValueError: The file is broken, or of another architecture.
    """
    content = read_torch(path)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    names = {str(name).removeprefix("model."): tensor for name, tensor in content.items()}
    tensors = {name: tensor for name, tensor in names.items() if not ignored or not name.startswith(ignored)}
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: not the weights of tissue.method {method} ({reason}); give the file that its authors publish as "
            "tissue.weights (docs/quality.md)"
        ) from error
    model.eval()


def measure_tissue(network: TissueNetwork, tile: np.ndarray) -> np.ndarray:
    """Measure how likely each pixel of a tile is tissue.

    Args:
        network: The network.
        tile: uint8 RGB (side, side, 3).

    Returns:
        Probabilities, float32 (side, side).
    """
    import torch

    pixels = torch.from_numpy(network.prepare(tile).astype(np.float32) / 255)
    normalized = (pixels - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    with torch.inference_mode():
        logits = network.predict(normalized.permute(2, 0, 1)[None])
        probabilities: np.ndarray = logits.softmax(1)[0, network.tissue_class].numpy()
    return probabilities


def find_tissue_by_network(
    slide: Slide, network: TissueNetwork, *, thumbnail_mpp: float = 8.0, **settings: Any
) -> tuple[np.ndarray, float]:
    """Find the tissue of a slide by a network: tiles side by side, white beyond the slide.

    Args:
        slide: The slide.
        network: The network.
        thumbnail_mpp: um/px of the mask, at most; a pixel of it is the mean of a whole number of the network's.
        settings: The keywords of `clean_mask`.

    Returns:
        The mask, bool (rows, columns), and level-0 px per pixel of it.

    Raises:
        SlideError: The slide's data are broken.
    """
    mpp = max(network.mpp, slide.mpp)
    scale = downsample_factor(slide.mpp, mpp)
    block = 1
    while 2 * block * mpp <= thumbnail_mpp and 2 * block <= NETWORK_TILE_PX:
        block *= 2
    columns, rows = (-int(-side // (scale * block)) for side in slide.size)
    cells = NETWORK_TILE_PX // block  # pixels of the mask along a tile
    mask = np.zeros((rows, columns), bool)
    for top in range(0, rows, cells):
        for left in range(0, columns, cells):
            tile = slide.read((left * block * scale, top * block * scale), (NETWORK_TILE_PX, NETWORK_TILE_PX), mpp)
            probabilities = measure_tissue(network, tile).reshape(cells, block, cells, block).mean((1, 3))
            part = mask[top : top + cells, left : left + cells]
            part[:] = probabilities[: part.shape[0], : part.shape[1]] > 0.5
    return clean_mask(mask, slide.mpp * scale * block, **settings), scale * block
