"""Writing a slide. The home of pyvips."""

from pathlib import Path

import numpy as np

from slpd_core import artifacts


def write_slide(path: Path, pixels: np.ndarray, mpp: float) -> None:
    """Write a tiled, pyramidal JPEG TIFF whose resolution tags state `mpp`.

    Args:
        path: The file to write.
        pixels: Level 0, uint8 RGB (rows, columns, 3).
        mpp: um/px of level 0.
    """
    import pyvips

    pixels_per_mm = 1000 / mpp
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    with artifacts.atomic_write(path) as part:
        image.tiffsave(
            str(part),
            tile=True,
            pyramid=True,
            compression="jpeg",
            Q=85,
            tile_width=256,
            tile_height=256,
            xres=pixels_per_mm,
            yres=pixels_per_mm,
            resunit="cm",
            bigtiff=True,
        )
