"""Tiles of real tissue, and the stains that composed slides give them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from slpd_core.pretraining.patch_augmentations import jitter_stain, sample_stain
from slpd_core.runtime import generator

PHENOTYPES = ("AC", "H", "S", "T", "V")
PATCHES = 4  # of a tile: its quarters
ALIKE = 10  # two tiles whose sketches are closer are one picture, turned or mirrored


def sketch(tile: np.ndarray) -> np.ndarray:
    """Describe a tile so that turning or mirroring changes nothing, float64 (192,)."""
    small = cv2.resize(tile, (8, 8), interpolation=cv2.INTER_AREA).astype(float)
    turned = [np.rot90(small, k) for k in range(4)]
    views = np.stack([view for one in turned for view in (one, one[:, ::-1])]).reshape(8, 64, 3)
    sketched: np.ndarray = np.sort(views, 1).mean(0).ravel()
    return sketched


def list_tiles(folder: Path) -> dict[str, list[Path]]:
    """List the tiles of each phenotype, one of each picture; `folder` holds a folder per phenotype."""
    listed = {}
    for phenotype in PHENOTYPES:
        paths = sorted((folder / phenotype).glob("*.jpg"))
        sketches = np.array([sketch(read_tile(path)) for path in paths])
        pairs = cKDTree(sketches).query_pairs(ALIKE, output_type="ndarray")
        alike = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(paths), len(paths)))
        _, picture = connected_components(alike, directed=False)
        listed[phenotype] = [paths[i] for i in np.unique(picture, return_index=True)[1]]
    return listed


def read_tile(path: Path) -> np.ndarray:
    """Read a tile, uint8 (P, P, 3) RGB."""
    read = cv2.imread(str(path))
    if read is None:
        raise ValueError(f"{path} is no picture; remove it")
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB)


def quarter(tiles: np.ndarray) -> np.ndarray:
    """Cut tiles (n, P, P, 3) into patches, (n, PATCHES, P/2, P/2, 3), row by row."""
    n, side = len(tiles), tiles.shape[1] // 2
    cut = tiles.reshape(n, 2, side, 2, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(n, PATCHES, side, side, 3)


def draw_stain(kind: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a slide's stain: "hed" as (4, 3), of `sample_stain`; "curve" as (2, 3), gain and gamma per color."""
    if kind == "hed":
        return sample_stain((), strength, rng)
    return 1 + strength * rng.uniform(-1, 1, (2, 3))


def stain(patches: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Stain patches (n, p, p, 3), uint8, by what was drawn."""
    pixels = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    change = torch.from_numpy(drawn).float()
    if len(change) == 4:
        changed = jitter_stain(pixels, change.expand(len(pixels), 4, 3))
    else:
        gain, gamma = change[:, :, None, None]
        changed = 1 - (1 - pixels.pow(gamma)) * gain  # gain of what is stained: glass stays white
    stained: np.ndarray = (changed.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return stained


def deal(listed: dict[str, list[Path]], seed: int, n_slides: int, n_tiles: int) -> list[list[list[Path]]]:
    """Deal tiles to slides, no tile to two: slide -> phenotype -> paths."""
    rng = generator(seed, "tiles")
    dealt = []
    for phenotype, paths in listed.items():
        if len(paths) < n_slides * n_tiles:
            raise ValueError(f"{phenotype}: {len(paths)} tiles are too few for {n_slides} slides of {n_tiles}")
        order = rng.permutation(len(paths))[: n_slides * n_tiles].reshape(n_slides, n_tiles)
        dealt.append([[paths[i] for i in row] for row in order])
    return [list(of_slide) for of_slide in zip(*dealt, strict=True)]
