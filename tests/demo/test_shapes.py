import numpy as np
import pytest

from slpd_core.demo.shapes import DOWNSAMPLE, Blobs, pack_blobs, resize_blobs, scatter_points, smooth_noise
from slpd_core.runtime import generator


def circles(*rows: tuple[float, float, float]) -> Blobs:
    """Blobs without waves; rows of x, y, radius."""
    x, y, radius = np.array(rows, float).reshape(-1, 3).T
    return Blobs(x, y, radius, np.zeros((len(x), 4)), np.zeros((len(x), 4)))


def test_the_level_of_circles_is_the_distance_to_the_nearest_edge():
    blobs = circles((100, 60, 30), (180, 200, 40))
    level = blobs.signed_distance(256)
    assert level.shape == (64, 64)
    for row in range(0, 64, 5):
        for column in range(0, 64, 5):
            x, y = (column + 0.5) * DOWNSAMPLE, (row + 0.5) * DOWNSAMPLE
            distance = max(30 - np.hypot(x - 100, y - 60), 40 - np.hypot(x - 180, y - 200))
            if distance > -60:
                assert level[row, column] == pytest.approx(distance, abs=1e-3)
            else:
                assert level[row, column] < -59


def test_without_blobs_nothing_is_inside():
    assert (circles().signed_distance(64) < 0).all()


def test_changed_moves_and_shrinks():
    blobs = resize_blobs(circles((10, 20, 30)), np.array([5.0]), np.array([[1.0], [-2.0]]), 1.0)
    assert (blobs.x[0], blobs.y[0], blobs.radius[0]) == (11, 18, 5)


def test_packed_blobs_keep_their_distance_and_cover_what_is_asked():
    allowed = np.zeros((200, 200), bool)
    allowed[20:180, 20:180] = True
    blobs = pack_blobs(generator(1), allowed, (20, 40), 0.3, 10)
    apart = np.hypot(*(part[:, None] - part for part in (blobs.x, blobs.y)))
    touching = blobs.radius[:, None] + blobs.radius + 10
    assert (apart + 1e9 * np.eye(len(apart)) >= touching).all()
    assert np.pi * (blobs.radius**2).sum() == pytest.approx(0.3 * 640**2, rel=0.05)
    assert allowed[(blobs.y / DOWNSAMPLE).astype(int), (blobs.x / DOWNSAMPLE).astype(int)].all()


def test_nowhere_to_go():
    nowhere = np.zeros((8, 8), bool)
    assert len(pack_blobs(generator(1), nowhere, (5, 9), 0.5, 1).x) == 0
    assert len(scatter_points(generator(1), nowhere, 5)[0]) == 0


@pytest.mark.parametrize("wavelength", [3, 40])
def test_noise_is_of_unit_size_and_as_smooth_as_asked(wavelength):
    noise = np.stack([smooth_noise(generator(seed), 200, wavelength) for seed in range(20)])
    assert noise.std() == pytest.approx(1.1, abs=0.2)
    steps = np.diff(noise, axis=2).std()
    assert 0.5 < steps * wavelength < 3
