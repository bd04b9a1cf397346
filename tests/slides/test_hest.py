"""HEST's network is torchvision's DeepLabV3 with two classes; its second class is tissue."""

import numpy as np
import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

from slpd_core.slides.hest import load_hest
from slpd_core.slides.tissue_network import measure_tissue


@pytest.fixture(scope="module")
def theirs():
    """The architecture with random weights, and a second head as for training."""
    torch.manual_seed(0)
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=2, aux_loss=True).eval()


def test_probabilities_are_those_of_the_architecture(theirs, tmp_path):
    state = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "hest.ckpt")
    network = load_hest(tmp_path / "hest.ckpt")
    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    pixels = torch.from_numpy(tile / 255).float().permute(2, 0, 1)
    mean, sd = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        logits = theirs(((pixels - mean) / sd)[None])["out"][0]
    np.testing.assert_allclose(measure_tissue(network, tile), torch.sigmoid(logits[1] - logits[0]), atol=1e-5)
    assert network.mpp == 1.0
    assert "not for commercial use" in network.license


def test_a_network_of_three_classes_is_refused(theirs, tmp_path):
    state = theirs.state_dict() | {"classifier.4.weight": torch.ones(3, 256, 1, 1), "classifier.4.bias": torch.ones(3)}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: not the weights of tissue\.method hest .*classifier\.4"):
        load_hest(tmp_path / "other.pth")
