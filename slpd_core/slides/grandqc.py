"""The tissue network of GrandQC: U-Net++ on EfficientNet-B0, at 10 um/px (Weng et al. 2024)."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from slpd_core.slides.tissue_network import TissueNetwork, load_tensors

JPEG_QUALITY = 80  # of the images that it was trained on


def compress_tile(tile: np.ndarray) -> np.ndarray:
    """Compress a tile as the images were that the network was trained on, their red and blue exchanged.

    Args:
        tile: uint8 RGB (side, side, 3).

    Returns:
        The same after JPEG.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile[..., ::-1])).save(file, "JPEG", quality=JPEG_QUALITY)
    with Image.open(file) as image:
        return np.asarray(image)[..., ::-1]


def load_grandqc(path: Path) -> TissueNetwork:
    """Load the network; the first of its two classes is tissue.

    Args:
        path: Its weights, Tissue_Detection_MPP10.pth.

    Returns:
        The network.

    Raises:
        ModuleNotFoundError: segmentation-models-pytorch is not installed.
        ValueError: The file is broken, or of another architecture.
    """
    try:
        import segmentation_models_pytorch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "tissue.method grandqc needs segmentation-models-pytorch; install it: pip install 'slpd[grandqc]'",
            name=error.name,
        ) from error
    model = segmentation_models_pytorch.UnetPlusPlus("timm-efficientnet-b0", encoder_weights=None, classes=2)
    load_tensors(model, path, "grandqc")
    return TissueNetwork(10.0, model, 0, "CC BY-NC-SA 4.0, not for commercial use", compress_tile)
