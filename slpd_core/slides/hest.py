"""The tissue network of HEST-1k: DeepLabV3 on ResNet-50, at 1 um/px (Jaume et al. 2024)."""

from pathlib import Path

from slpd_core.slides.tissue_network import TissueNetwork, load_tensors


def load_hest(path: Path) -> TissueNetwork:
    """Load the network.

    Args:
        path: Its weights, deeplabv3_seg_v4 of MahmoodLab/hest-tissue-seg.

    Returns:
        The network.

    Raises:
        ValueError: The file is broken, or of another architecture.
    """
    from torchvision.models.segmentation import deeplabv3_resnet50

    model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=2)
    load_tensors(model, path, "hest", ignored="aux_classifier.")
    return TissueNetwork(1.0, lambda tiles: model(tiles)["out"], 1, "CC BY-NC-SA 4.0, not for commercial use")
