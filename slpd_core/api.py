"""The steps from a slide to prototypes as functions of arrays, for notebooks and scripts.

They need no settings file and no artifacts. Each does what the stage of the same step does: its results equal the
stage's. Defaults are those of config.yaml: the paper's values. `import slpd_core` exports these names.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from slpd_core import artifacts, config
from slpd_core.drawing.overlays import draw_regions, outline_tissue
from slpd_core.encoders import patch_encoder as encoders
from slpd_core.encoders import region_encoder, vit_inference
from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.pretraining import patch_encoder, prototypes
from slpd_core.pretraining.matching import Matching
from slpd_core.pretraining.networks import torch_seed
from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.pretraining.token_dataset import embed_regions
from slpd_core.slides import regions as grid
from slpd_core.slides import tissue as segmentation
from slpd_core.slides.tokens import RegionTokenizer, count_patches, prepare_model
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.reader import Slide, iter_regions

Device = Literal["cpu", "cuda"] | None
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def find_tissue(
    slide: Slide,
    *,
    outline: str | Path | None = None,
    mask_origin: Literal["slide", "bounds"] | None = None,
    classes: Sequence[str] | None = None,
    ignore: Sequence[str] = ("Artifact", "Artefact", "Background"),
    thumbnail_mpp: float = 8.0,
    smoothing_um: float = 24.0,
    closing_um: float = 64.0,
    ink: Literal["auto", "exclude", "keep"] = "auto",
    min_island_um2: float = 40_000.0,
    min_hole_um2: float = 40_000.0,
) -> artifacts.Tissue:
    """Find the tissue of a slide on a thumbnail, or take it from an outline.

    Args:
        slide: An open slide. Its file's name without extension becomes the slide's id.
        outline: A GeoJSON outlined by hand, as QuPath exports it; the slide is not segmented then.
        mask_origin: What the outline counts from, on slides that state bounds: "slide" (level 0) or "bounds" (QuPath).
        classes: The outline's classes that are tissue; None: all.
        ignore: The outline's classes that are subtracted from tissue.
        thumbnail_mpp: um/px of the thumbnail.
        smoothing_um: Width of the median filter; thinner lines are no tissue.
        closing_um: Narrower gaps are closed.
        ink: What is blue, green or yellow: "exclude" (ink of a pen), "keep" (a stain), or "auto".
        min_island_um2: Pieces of tissue that are no larger are dropped.
        min_hole_um2: Holes that are no larger are filled.

    Returns:
        The polygons with holes, level-0 px, with what is known of the slide.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: The outline cannot be read as one of this slide.
    """
    settings = config.TissueSegmentationConfig(
        thumbnail_mpp=thumbnail_mpp,
        smoothing_um=smoothing_um,
        closing_um=closing_um,
        ink=ink,
        min_island_um2=min_island_um2,
        min_hole_um2=min_hole_um2,
        missing_tiles="white" if slide.missing_tiles == "white" else "error",
    )
    reading = config.TissueOutlineConfig(
        mask_origin=mask_origin, classes=None if classes is None else tuple(classes), ignore=tuple(ignore)
    )
    mask_path = None if outline is None else Path(outline)
    return segmentation.segment_open(slide.path.stem, slide, settings, mask_path=mask_path, outline=reading)[0]


def select_regions(
    tissue: artifacts.Tissue,
    *,
    size_px: int = 4096,
    target_mpp: float = 0.5,
    min_tissue_fraction: float = 0.25,
    edge: Literal["pad", "drop"] = "pad",
    anchor: Literal["slide", "tissue"] = "slide",
) -> artifacts.Regions:
    """Lay a grid of squares over a slide and keep those with enough tissue.

    Args:
        tissue: Of the slide, as `find_tissue` returns.
        size_px: Side of a region at target_mpp (paper: 4096).
        target_mpp: um/px at which regions are read (paper: 0.5).
        min_tissue_fraction: Squares with less tissue are dropped.
        edge: Squares that hang over the slide's edge: "pad" (white) or "drop".
        anchor: Where the grid begins: "slide" (its corner) or "tissue" (where most tissue is kept).

    Returns:
        The regions: `coords` int64 (L, 2), level-0 px of the upper left corners, and `tissue_fraction` float32 (L,).

    Raises:
        SlideError: The slide is coarser than target_mpp.
    """
    settings = config.RegionsConfig(
        size_px=size_px, target_mpp=target_mpp, min_tissue_fraction=min_tissue_fraction, edge=edge, anchor=anchor
    )
    return grid.select_regions(tissue, settings)


def draw_overlay(
    slide: Slide, tissue: artifacts.Tissue, regions: artifacts.Regions | None = None, *, thumbnail_mpp: float = 8.0
) -> np.ndarray:
    """Draw a slide's tissue, and its regions, on its thumbnail.

    Args:
        slide: An open slide.
        tissue: Its tissue, drawn in green.
        regions: Its regions, drawn in blue; None draws none.
        thumbnail_mpp: um/px of the thumbnail.

    Returns:
        The picture, uint8 RGB (rows, columns, 3), at most 1024 px wide and high before regions overhang it.
    """
    scale = (downsample_factor(slide.mpp, max(slide.mpp, thumbnail_mpp)),) * 2
    picture = outline_tissue(slide.thumbnail(thumbnail_mpp), tissue.polygons, scale)
    if regions is not None:
        picture = draw_regions(picture, slide.size, regions.coords, regions.coords[:0], regions.size_level0_px)
    return np.asarray(picture)


def build_patch_encoder(
    source: Literal["random", "hipt", "timm"] = "random",
    *,
    name: str = "vit_small_patch16_224",
    weights: str | Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    patch_px: int = 256,
    input_px: int | None = None,
    pooling: Literal["cls", "cls_mean"] = "cls",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    position_offset: float | None = None,
    precision: Precision = "auto",
    batch_size: int | Literal["auto"] = "auto",
    device: Device = None,
    seed: int = 1,
) -> RegionTokenizer:
    """Build a frozen patch encoder, ready to run.

    Args:
        source: "random" (seeded, untrained: a baseline), "hipt" (its vit256_small_dino.pth, as the paper) or "timm".
        name: The timm architecture; with "timm" also hf-hub:OWNER/MODEL or local-dir:DIR.
        weights: Path of the checkpoint for "hipt", of a state dict for "timm"; None: those that go by the name.
        model_kwargs: Further arguments of the architecture, as for timm.create_model.
        patch_px: Side of a patch within the region (paper: 256).
        input_px: Side that a patch is resized to; None: the encoder's own for "timm", else patch_px.
        pooling: A patch's token: "cls" ([CLS]; paper) or "cls_mean" ([CLS], then the mean of the other tokens).
        mean, std: Normalization of RGB in 0..1, three numbers each; None: the encoder's own.
        position_offset: Added to the grid when positions are resampled; None: 0.1 for "hipt", else 0.
        precision: "auto" takes half precision where the device is fast at it.
        batch_size: Patches per forward pass; "auto" by the memory.
        device: "cpu" or "cuda"; None: a GPU if there is one.
        seed: Of a random encoder.

    Returns:
        The encoder: an iterable of regions, uint8 (side, side, 3), to float16 (g * g, D) each; see `encode`.

    Raises:
        ValueError: The weights do not fit the architecture, or do not say how pixels are normalized.
        FileNotFoundError: There is no such file of weights.
    """
    if source not in ("random", "hipt", "timm"):
        raise ValueError(
            f"source: {source!r} cannot be built here; give random, hipt or timm, or load the weights.safetensors that "
            "the stage patch_encoder wrote by load_patch_encoder"
        )
    settings = config.PatchEncoderConfig.model_validate(
        {
            "source": source,
            "name": name,
            "weights": None if weights is None else str(weights),
            "arguments": dict(model_kwargs or {}),
            "patch_px": patch_px,
            "input_px": input_px,
            "pooling": pooling,
            "mean": mean,
            "std": std,
            "position_offset": position_offset,
        }
    )
    model, meta = patch_encoder.build(settings, patch_encoder.load_source(settings, seed), seed)
    return _prepare(model.eval().requires_grad_(False), meta, precision, batch_size, device)


def load_patch_encoder(
    path: str | Path,
    *,
    precision: Precision = "auto",
    batch_size: int | Literal["auto"] = "auto",
    device: Device = None,
) -> RegionTokenizer:
    """Load a patch encoder that the pipeline wrote, ready to run.

    Args:
        path: Of its `weights.safetensors`.
        precision, batch_size, device: As in `build_patch_encoder`.

    Returns:
        The encoder, as from `build_patch_encoder`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds no patch encoder.
    """
    return _prepare(*encoders.load(Path(path)), precision, batch_size, device)


def _prepare(
    model: nn.Module, meta: dict[str, Any], precision: str, batch_size: int | Literal["auto"], device: Device
) -> RegionTokenizer:
    """Make a model ready to run on the device."""
    device = _device(device)
    defaults = config.default_config().tokens.encoding
    settings = defaults.model_copy(update={"batch_size": batch_size})
    chosen = vit_inference.choose_precision(precision, device, meta["token_dim"])
    return prepare_model(model, meta, settings, chosen, device)


def _device(device: Device) -> Literal["cpu", "cuda"]:
    """The device itself, or a GPU if there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def encode(slide: Slide, regions: artifacts.Regions, encoder: RegionTokenizer) -> np.ndarray:
    """Encode the patches of a slide's regions.

    Args:
        slide: An open slide.
        regions: Its regions, as `select_regions` returns.
        encoder: Of `build_patch_encoder` or `load_patch_encoder`.

    Returns:
        Tokens, float16 (L, g * g, D): the g * g patches of a region row by row.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: The regions do not divide into whole patches.
    """
    side = count_patches(regions.slide.slide_id, regions.size_px, encoder.patch_px)
    tokens = list(encoder(iter_regions(slide, regions)))
    if tokens:
        return np.stack(tokens)
    white = torch.full((1, encoder.patch_px, encoder.patch_px, 3), 255, dtype=torch.uint8, device=encoder.device)
    return np.empty((0, side * side, encoder.encode(white).shape[1]), np.float16)


def build_region_encoder(
    weights: str | Path | None = None,
    *,
    token_dim: int = 384,
    embed_dim: int = 192,
    depth: int = 6,
    n_heads: int = 6,
    grid: int = 14,
    device: Device = None,
    seed: int = 1,
) -> RegionEncoder:
    """Build a region encoder ViT4096-256: random, or of HIPT's published weights.

    Args:
        weights: HIPT's vit4k_xs_dino.pth; None: random, the weights that a run of this seed begins with.
        token_dim: D of the tokens.
        embed_dim: Of the embeddings (paper: 192).
        depth: Transformer blocks (paper: 6).
        n_heads: Attention heads (paper: 6).
        grid: Side of the learned positions in tokens: that of the global crop (paper: 14).
        device: "cpu" or "cuda"; None: a GPU if there is one.
        seed: Of random weights.

    Returns:
        The encoder, frozen.

    Raises:
        FileNotFoundError: There is no such file of weights.
        ValueError: The weights do not fit the architecture.
    """
    shape = (token_dim, embed_dim, depth, n_heads, grid)
    state = None if weights is None else region_encoder.read_state(Path(weights), shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "weights"))
        encoder = RegionEncoder(*shape)
    if state is not None:
        encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False).to(_device(device))


def load_region_encoder(path: str | Path, *, device: Device = None) -> RegionEncoder:
    """Load a region encoder that the pipeline pretrained.

    Args:
        path: Of a run's `encoder.safetensors`.
        device: "cpu" or "cuda"; None: a GPU if there is one.

    Returns:
        The encoder, frozen.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds no region encoder.
    """
    return region_encoder.load(Path(path))[0].to(_device(device))


def embed(tokens: np.ndarray, encoder: RegionEncoder, *, batch_size: int | None = None) -> np.ndarray:
    """Embed whole regions.

    Args:
        tokens: float16 (L, g * g, D), as `encode` returns or a tokens file holds.
        encoder: Of `build_region_encoder` or `load_region_encoder`.
        batch_size: Regions per forward pass; None: by the memory.

    Returns:
        Embeddings, float32 (L, embed_dim).

    Raises:
        ValueError: The tokens of a region are no square grid, or of another length than the encoder's.
    """
    return embed_regions(encoder, _token_grid(tokens, encoder), _device_of(encoder), batch_size)


def compute_attention(tokens: np.ndarray, encoder: RegionEncoder, *, batch_size: int | None = None) -> np.ndarray:
    """Compute how much [CLS] attends to each token of its region in the last block, the mean over the heads.

    Args:
        tokens, encoder, batch_size: As in `embed`.

    Returns:
        Attention, float32 (L, g * g), row by row; with what [CLS] leaves for itself a region's add up to 1.

    Raises:
        ValueError: As `embed`.
    """

    def attend(batch: torch.Tensor) -> torch.Tensor:
        return encoder.with_attention(batch)[1]

    return embed_regions(attend, _token_grid(tokens, encoder), _device_of(encoder), batch_size)


def _token_grid(tokens: np.ndarray, encoder: RegionEncoder) -> torch.Tensor:
    """Tokens (L, g * g, D) as (L, g, g, D), if the encoder takes them."""
    if tokens.ndim != 3 or math.isqrt(tokens.shape[1]) ** 2 != tokens.shape[1]:
        raise ValueError(f"tokens: {tokens.shape}, not (regions, g * g, D); give what encode returns")
    if tokens.shape[2] != encoder.shape["token_dim"]:
        raise ValueError(
            f"tokens: of {tokens.shape[2]}, the region encoder takes {encoder.shape['token_dim']}; build it with "
            f"token_dim={tokens.shape[2]}, or encode by the patch encoder that it was trained with"
        )
    side = math.isqrt(tokens.shape[1])
    return torch.from_numpy(np.array(tokens)).view(len(tokens), side, side, tokens.shape[2])


def _device_of(encoder: nn.Module) -> str:
    """The device that an encoder's weights are on."""
    return next(encoder.parameters()).device.type


def cluster_slides(
    embeddings: Mapping[str, np.ndarray],
    *,
    n_prototypes: int = 4,
    n_neighbors: int = 1,
    min_regions: int | None = None,
    kmeans_restarts: int = 5,
    kmeans_iterations: int = 10,
    matching: Matching = "optimal",
    patients: Mapping[str, str] | None = None,
    center_slides: bool = False,
    seed: int = 1,
    epoch: int = 0,
) -> Prototypes:
    """Cluster each slide's regions into prototypes, and match them with those of its most similar slides.

    Args:
        embeddings: Of each slide by its id, float32 (L, D).
        n_prototypes: M, prototypes per slide (paper: 4 on NSCLC, 2 on BRCA).
        n_neighbors: K, most similar slides (paper: 1).
        min_regions: A slide of fewer has no prototypes; None: M.
        kmeans_restarts, kmeans_iterations: Of k-means.
        matching: A prototype's partner in a neighbor: "optimal" (one to one, eq. 3) or "nearest" (many to one).
        patients: Of each slide by its id; slides of one patient are no neighbors then.
        center_slides: Compare slides by their prototypes less the mean of their regions.
        seed, epoch: Of the random restarts: those of a pretraining run at that epoch.

    Returns:
        Prototypes of N slides, in the order given: float32 (N, M, D), zero for a slide of too few regions; the
        prototype of each region, (R,), slide after slide; each slide's K most similar slides, (N, K), and the partners
        of its prototypes there, (N, K, M). -1 stands for none (paper, sec. 2.2).

    Raises:
        ValueError: There is no slide.
    """
    if not embeddings:
        raise ValueError("embeddings: of no slide; give those of one slide at least")
    ids = list(embeddings)
    group = None if patients is None else np.unique([patients[name] for name in ids], return_inverse=True)[1]
    return prototypes.cluster_slides(
        np.concatenate([embeddings[name] for name in ids]),
        np.repeat(np.arange(len(ids)), [len(embeddings[name]) for name in ids]),
        ids,
        M=n_prototypes,
        K=n_neighbors,
        restarts=kmeans_restarts,
        iterations=kmeans_iterations,
        seed=seed,
        epoch=epoch,
        min_regions=min_regions,
        group=group,
        matching=matching,
        centre_slides=center_slides,
    )
