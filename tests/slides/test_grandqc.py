"""GrandQC's network sees tiles after JPEG; its first class is tissue, and it needs a package of its own."""

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from slpd_core.slides.grandqc import compress_tile, load_grandqc
from slpd_core.slides.tissue_network import measure_tissue


@pytest.fixture
def tile():
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8), (64, 64))
    return np.clip(smooth + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8)


def test_a_tile_is_compressed_as_opencv_compresses_rgb_that_it_takes_for_bgr(tile):
    _, file = cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, 80])
    theirs = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert np.abs(compress_tile(tile).astype(int) - theirs).max() <= 3
    assert np.abs(compress_tile(tile).astype(int) - tile).max() > 5


def test_the_architecture_is_that_of_the_weights_and_its_first_class_is_tissue(tile, tmp_path, monkeypatch):
    made = []

    def build(*args, **kwargs) -> nn.Module:
        made.append((args, kwargs))
        return nn.Conv2d(3, 2, 1)

    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", SimpleNamespace(UnetPlusPlus=build))
    state = {"weight": torch.zeros(2, 3, 1, 1), "bias": torch.tensor([2.0, 0.0])}
    torch.save(state, tmp_path / "grandqc.pth")
    network = load_grandqc(tmp_path / "grandqc.pth")
    assert made == [(("timm-efficientnet-b0",), {"encoder_weights": None, "classes": 2})]
    assert (network.mpp, network.prepare) == (10.0, compress_tile)
    np.testing.assert_allclose(measure_tissue(network, tile), 1 / (1 + np.exp(-2)), rtol=1e-5)


def test_the_packages_network_takes_its_own_weights(tile, tmp_path):
    package = pytest.importorskip("segmentation_models_pytorch", reason="no segmentation-models-pytorch")
    torch.manual_seed(0)
    theirs = package.UnetPlusPlus("timm-efficientnet-b0", encoder_weights=None, classes=2).eval()
    torch.save(theirs.state_dict(), tmp_path / "grandqc.pth")
    network = load_grandqc(tmp_path / "grandqc.pth")
    tiles = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network.predict(tiles), theirs(tiles))


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"grandqc needs segmentation-models-pytorch; .*'slpd\[grandqc\]'"):
        load_grandqc(tmp_path / "grandqc.pth")
