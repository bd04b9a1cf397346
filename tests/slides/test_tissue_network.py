"""A network's tissue lies where it sees it, whatever its um/px; its weights are read, checked and recorded."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from shapely import box, union_all
from torch import nn
from torchvision.transforms import v2

from slpd_core import artifacts, config
from slpd_core.slides import tissue
from slpd_core.slides.tissue_network import TissueNetwork, find_tissue_by_network, load_tensors, measure_tissue
from slpd_core.wsi.reader import Slide

RED = (200, 30, 30)
RECTANGLES = {(450, 350, 1200, 800): RED, (2500, 1300, 500, 700): RED}  # the second ends at the slide's corner
TRUTH = box(450, 350, 1650, 1150).union(box(2500, 1300, 3000, 2000))


def see_red(tiles: torch.Tensor) -> torch.Tensor:
    """Logits of tissue, and of all else: pixels with little green are tissue."""
    lack_of_green = 10 * (0 - tiles[:, 1])
    return torch.stack([lack_of_green, torch.zeros_like(lack_of_green)], 1)


def make_network(mpp: float) -> TissueNetwork:
    return TissueNetwork(mpp, see_red, 0, "not for sale")


@pytest.mark.parametrize(
    ("mpp", "thumbnail_mpp", "side"), [(1.0, 8.0, 16.0), (1.5, 8.0, 12.0), (10.0, 8.0, 20.0), (0.5, 1.0, 2.0)]
)
def test_tissue_is_found_where_it_was_planted(planted, mpp, thumbnail_mpp, side):
    with Slide(planted((3000, 2000), RECTANGLES)) as slide:
        mask, level0_px = find_tissue_by_network(slide, make_network(mpp), thumbnail_mpp=thumbnail_mpp)
    assert level0_px == side
    assert mask.shape == (-(-2000 // side), -(-3000 // side))
    polygons = union_all(tissue.mask_polygons(mask, (side, side)))
    assert polygons.intersection(TRUTH).area / polygons.union(TRUTH).area > 0.95
    assert polygons.hausdorff_distance(TRUTH) < 3 * side + 16


def test_pixels_of_the_mask_are_means_of_probabilities(planted):
    """Half a pixel of tissue is as likely as not; the probability counts, not the area."""

    def likely(tiles: torch.Tensor) -> torch.Tensor:
        red = (tiles[:, 1] < 0).float()
        return torch.stack([torch.zeros_like(red), red * 9 - (1 - red) * (0.4 + 5 * (tiles[:, 0] > 2))], 1)

    stripes = {(x, 0, 4, 1024): RED for x in range(0, 1024, 16)}  # a quarter of each 16 px
    with Slide(planted((1024, 1024), {(0, 0, 1024, 1024): (120, 240, 120)} | stripes)) as slide:
        options = {"smoothing_um": 0, "closing_um": 0, "min_island_um2": 0, "min_hole_um2": 0}
        mask, _ = find_tissue_by_network(slide, TissueNetwork(1.0, likely, 1, ""), **options)
    # (1 + 3 * sigmoid(-0.4)) / 4 = 0.55
    assert mask.mean() > 0.95


def test_a_slide_coarser_than_the_network_is_seen_at_its_own_scale(planted):
    with Slide(planted((1500, 1000), {(225, 175, 600, 400): RED}, mpp=2.0)) as slide:
        mask, side = find_tissue_by_network(slide, make_network(1.0))
    assert side == 4
    assert mask.mean() == pytest.approx(600 * 400 / 1500 / 1000, rel=0.03)


def test_a_tile_is_prepared_and_normalized_as_torchvision_does():
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    expected = v2.Compose([*steps, v2.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))])(255 - tile)
    seen = []

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tiles)
        return tiles

    network = TissueNetwork(1.0, predict, 2, "", prepare=lambda pixels: 255 - pixels)
    probabilities = measure_tissue(network, tile)
    torch.testing.assert_close(seen[0][0], expected)
    np.testing.assert_allclose(probabilities, expected.exp()[2] / expected.exp().sum(0), rtol=1e-5)


class Tiny(nn.Module):
    """Two layers, of which the second is for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 1)


def test_weights_are_read_as_they_are_and_as_lightning_has_them(tmp_path):
    state = Tiny().state_dict()
    lightning = {f"model.{name}": tensor for name, tensor in state.items()} | {"model.aux.weight": torch.ones(2)}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": lightning, "epoch": 3}, tmp_path / "lightning.ckpt")
    for name in ("plain.pth", "lightning.ckpt"):
        model = Tiny()
        load_tensors(model, tmp_path / name, "hest", ignored="aux.")
        assert not model.training
        for key, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, state[key])


@pytest.mark.parametrize("content", [{"body.weight": torch.ones(2, 3, 1, 1)}, {"other": torch.ones(1)}, [1], {"a": 1}])
def test_other_weights_are_refused_by_name(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: not the weights of tissue\.method hest \(.*docs/quality"):
        load_tensors(Tiny(), tmp_path / "x.pth", "hest")


@pytest.fixture
def run(tmp_path, planted, settings, monkeypatch):
    """Run the stage by a network; returns the tissue and its metadata."""
    opened = []

    def load(path) -> TissueNetwork:
        opened.append(path)
        return make_network(4.0)

    monkeypatch.setattr(tissue, "TISSUE_NETWORKS", {"hest": load})
    path = planted((3000, 2000), {(500, 500, 1500, 800): RED})

    def run(weights=tmp_path / "weights.pth", **options) -> tuple[artifacts.Tissue, dict]:
        section = settings.tissue.segmentation.model_dump() | {"method": "hest", "weights": str(weights)}
        paths = {"geojson_path": tmp_path / "s.geojson", "overlay_path": tmp_path / "s.png"}
        section = config.TissueSegmentationConfig(**section)
        tissue.run(slide_id="s", slide_path=path, mpp=None, section=section, quarantine=(), **paths, **options)
        assert not options or not opened
        return artifacts.read_tissue(tmp_path / "s.geojson")

    (tmp_path / "weights.pth").write_bytes(b"one")
    return run


def test_the_stage_draws_and_records_what_the_network_sees(run, tmp_path, caplog):
    caplog.set_level("INFO")
    seen, meta = run()
    assert union_all(seen.polygons).area == pytest.approx(1500 * 800, rel=0.03)
    assert '"method": "hest"' in meta["section"]
    assert str(tmp_path) not in str(meta)
    assert "tissue by hest: not for sale" in caplog.text
    assert Image.open(tmp_path / "s.png").size == (188, 125)


def test_the_fingerprint_follows_the_content_of_the_weights(run, tmp_path):
    _, first = run()
    (tmp_path / "weights.pth").rename(tmp_path / "moved.pth")
    assert run(tmp_path / "moved.pth")[1]["fingerprint"] == first["fingerprint"]
    (tmp_path / "weights.pth").write_bytes(b"two")
    assert run()[1]["fingerprint"] != first["fingerprint"]


def test_a_slide_with_an_outline_needs_no_network(run, tmp_path):
    outline = tmp_path / "outline.geojson"
    outline.write_text(
        '{"type": "Polygon", "coordinates": [[[100, 100], [900, 100], [900, 900], [100, 900], [100, 100]]]}'
    )
    outlined, _ = run(mask_path=outline)
    assert (outlined.source, union_all(outlined.polygons).area) == ("outline", 800 * 800)


def test_without_weights_a_function_says_what_is_missing(planted):
    with (
        Slide(planted((300, 200), {})) as slide,
        pytest.raises(ValueError, match=re.escape("tissue.method hest needs its weights")),
    ):
        tissue.segment_slide("s", slide, method="hest")


def test_otsu_is_recorded_as_before(settings):
    assert not {"method", "weights"} & {*settings.tissue.segmentation.model_dump()}
