"""Slides composed of real phenotypes: pools of encoded tiles, and the designs that lay them out as regions."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.evidence.encoder import encode
from benchmarks.evidence.tiles import PATCHES, PHENOTYPES, deal, draw_stain, quarter, read_tile, stain
from slpd_core.encoders.vit_inference import FrozenEncoder
from slpd_core.pretraining.token_dataset import TokenDataset
from slpd_core.runtime import generator

GRID = 4  # tiles along a region's side; 8 patches
LABEL_SHIFT = np.array([1.0, -1.0, 0.0, 0.5, -0.5])  # of the phenotypes' log share, for and against a label
# What may touch, by label: neighbors on a ring of phenotypes, and on the ring of those that are no neighbors there.
RINGS = np.array([[0, 1, 2, 3, 4], [0, 2, 4, 1, 3]])


@dataclass(frozen=True)
class Design:
    """How a cohort is drawn.

    Attributes:
        label: What tells the labels apart: the mixture of phenotypes, their arrangement, or both.
        n_slides: Half of each label.
        n_regions: Per slide.
        n_tiles: Per phenotype and slide.
        shift: Of the log shares between the labels.
        concentration: Of a slide's mixture about its label's.
        purity: Share of a region's tiles that are of its main phenotype; the others are of the slide's mixture.
        banded: Whether the tiles of a phenotype lie together, in bands, or anywhere.
        stain: Kind of a slide's stain.
        stain_strength: Of it.
        confounded: Whether stain goes with the label in the first half of the slides.
    """

    label: str = "mixture"
    n_slides: int = 60
    n_regions: int = 24
    n_tiles: int = 24
    shift: float = 0.6
    concentration: float = 12.0
    purity: float = 0.6
    banded: bool = False
    stain: str = "hed"
    stain_strength: float = 0.3
    confounded: bool = False


@dataclass(frozen=True)
class Pool:
    """Encoded tiles of a seed's slides.

    Attributes:
        tokens: float16 (slides, phenotypes, tiles, PATCHES, D).
        colors: float32 (slides, phenotypes, tiles, 3), mean RGB.
    """

    tokens: np.ndarray
    colors: np.ndarray

    def save(self, path: Path) -> None:
        """Write the pool."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, tokens=self.tokens, colors=self.colors)

    @classmethod
    def load(cls, path: Path) -> "Pool":
        """Read a pool."""
        with np.load(path) as stored:
            return cls(stored["tokens"], stored["colors"])


@dataclass(frozen=True)
class Composed:
    """A cohort with its truth.

    Attributes:
        cohort: Tokens, slide by slide.
        labels: (slides,).
        phenotype: (regions,), the main one of each.
        known: (regions, phenotypes), fractions of its tiles; where arrangement matters also how often two touch.
        colors: (regions, 3), mean RGB.
        first_half: (slides,), those in which a confounded design ties stain to the label.
    """

    cohort: TokenDataset
    labels: np.ndarray
    phenotype: np.ndarray
    known: np.ndarray
    colors: np.ndarray
    first_half: np.ndarray


def draw_labels(design: Design, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels, balanced in each half of the slides, and the halves."""
    half = np.arange(design.n_slides) < design.n_slides // 2
    rng, labels = generator(seed, "labels"), np.empty(design.n_slides, int)
    for part in (half, ~half):
        labels[part] = rng.permutation(np.arange(part.sum()) % 2)
    return labels, half


def slide_stain(design: Design, seed: int, slide: int) -> np.ndarray:
    """Draw a slide's stain; in a confounded half it is the more extreme one of two in its label's direction."""
    labels, first_half = draw_labels(design, seed)
    rng = generator(seed, "stain", slide)
    drawn = draw_stain(design.stain, design.stain_strength, rng)
    if not (design.confounded and first_half[slide]):
        return drawn
    center = 1.0 if labels[slide] else -1.0  # hematoxylin and eosin both stronger, or both weaker
    aligned = [draw_stain(design.stain, design.stain_strength, rng) for _ in range(8)]
    chosen: np.ndarray = max(aligned, key=lambda one: center * one[:3].trace())
    return chosen


def make_pool(
    model: FrozenEncoder, listed: dict[str, list[Path]], design: Design, seed: int, device: str = "cpu"
) -> Pool:
    """Stain and encode the tiles of a seed's slides."""
    tokens, colors = [], []
    for slide, of_phenotype in enumerate(deal(listed, seed, design.n_slides, design.n_tiles)):
        tiles = np.stack([read_tile(path) for paths in of_phenotype for path in paths])
        stained = stain(tiles, slide_stain(design, seed, slide))
        patches = quarter(stained).reshape(-1, *quarter(stained[:1]).shape[2:])
        shape = (len(PHENOTYPES), design.n_tiles)
        tokens.append(encode(model, patches, device).reshape(*shape, PATCHES, -1))
        colors.append(stained.mean((1, 2)).reshape(*shape, 3))
    return Pool(np.stack(tokens), np.stack(colors).astype(np.float32))


def mixtures(labels: np.ndarray, design: Design, rng: np.random.Generator) -> np.ndarray:
    """Draw each slide's mixture, (slides, phenotypes)."""
    toward = np.where(labels[:, None], LABEL_SHIFT, -LABEL_SHIFT) * design.shift
    share = np.exp(toward if design.label != "arrangement" else 0 * toward)
    share /= share.sum(1, keepdims=True)
    return np.stack([rng.dirichlet(design.concentration * row) for row in share])


def lay_out(kinds: np.ndarray, ring: np.ndarray, design: Design, rng: np.random.Generator) -> np.ndarray:
    """Arrange a region's tiles, phenotypes (GRID²,), on its grid: anywhere, or in bands in a ring's order."""
    if not design.banded and design.label == "mixture":
        return rng.permutation(kinds).reshape(GRID, GRID)
    place = np.argsort(ring)[kinds]  # of each tile's phenotype on the ring
    start = rng.choice(len(ring))
    bands = kinds[np.argsort((place - start) % len(ring), kind="stable")].reshape(GRID, GRID)
    bands[1::2] = bands[1::2, ::-1]  # as one walks to and fro, neighbors on the way touch
    turned: np.ndarray = np.rot90(bands, int(rng.integers(4)))
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def count_touching(laid: np.ndarray) -> np.ndarray:
    """Count how often two phenotypes touch in a grid of tiles, as fractions (phenotypes²,)."""
    n = len(PHENOTYPES)
    pairs = np.concatenate([(laid[1:] * n + laid[:-1]).ravel(), (laid[:, 1:] * n + laid[:, :-1]).ravel()])
    counts = np.bincount(pairs, minlength=n * n).reshape(n, n)
    touching: np.ndarray = ((counts + counts.T) / (2 * len(pairs))).ravel()
    return touching


def compose(pool: Pool, design: Design, seed: int) -> Composed:
    """Compose the cohort of a seed from its pool."""
    labels, first_half = draw_labels(design, seed)
    rng = generator(seed, "composition")
    share = mixtures(labels, design, rng)
    n, D = design.n_slides * design.n_regions, pool.tokens.shape[-1]
    tokens = np.empty((n, 2 * GRID, 2 * GRID, D), np.float16)
    fractions, phenotype, colors = np.empty((n, len(PHENOTYPES))), np.empty(n, int), np.empty((n, 3))
    touching = np.empty((n, len(PHENOTYPES) ** 2))
    for region in range(n):
        slide = region // design.n_regions
        phenotype[region] = main = rng.choice(len(PHENOTYPES), p=share[slide])
        others = rng.choice(len(PHENOTYPES), GRID**2, p=share[slide])
        n_main = rng.binomial(GRID**2, design.purity)
        kinds = np.where(np.arange(GRID**2) < n_main, main, others)
        ring = RINGS[labels[slide] if design.label != "mixture" else 0]
        laid = lay_out(kinds, ring, design, rng)
        tile = rng.integers(design.n_tiles, size=laid.shape)
        patches = pool.tokens[slide, laid, tile].reshape(GRID, GRID, 2, 2, D)
        tokens[region] = patches.transpose(0, 2, 1, 3, 4).reshape(2 * GRID, 2 * GRID, D)
        fractions[region] = np.bincount(kinds, minlength=len(PHENOTYPES)) / GRID**2
        touching[region] = count_touching(laid)
        colors[region] = pool.colors[slide, laid, tile].mean((0, 1))
    names = [f"slide-{i:03d}" for i in range(design.n_slides)]
    slide_of = np.repeat(np.arange(design.n_slides), design.n_regions)
    coords = np.zeros((n, 2), np.int64)
    cohort = TokenDataset(torch.from_numpy(tokens), slide_of, coords, names, names, str(seed))
    known = fractions if design.label == "mixture" else np.concatenate([fractions, touching], 1)
    return Composed(cohort, labels, phenotype, known, colors, first_half)


def change_tokens(composed: Composed, tokens: torch.Tensor) -> Composed:
    """Put other tokens in a cohort's place."""
    return replace(composed, cohort=replace(composed.cohort, tokens=tokens))
