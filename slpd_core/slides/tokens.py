"""Tokens: every 256 px patch of a slide's regions through the frozen patch encoder."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from slpd_core import config, store
from slpd_core.runtime import log, progress
from slpd_core.slides import patch_encoder
from slpd_core.slides.bad_slides import SlideError
from slpd_core.slides.reader import Slide

VERSION = 2
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(precision: str, device: str) -> str:
    """What `auto` stands for: bf16 on a GPU or CPU with instructions for it, fp16 on an older GPU, else fp32."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    fast = torch.cpu.get_capabilities()
    return "bf16" if fast.get("avx512_bf16") or fast.get("amx_bf16") else "fp32"


def cut_patches(region: np.ndarray, patch_px: int) -> np.ndarray:
    """Cut a region, uint8 (side, side, 3), into its patches, row by row: uint8 (grid * grid, 3, patch_px, patch_px)."""
    grid = len(region) // patch_px
    rows = region.reshape(grid, patch_px, grid, patch_px, 3)
    return rows.transpose(0, 2, 4, 1, 3).reshape(grid * grid, 3, patch_px, patch_px)


def mean_colours(region: np.ndarray, patch_px: int) -> np.ndarray:
    """The mean RGB of each patch of a region, uint8 (side, side, 3), row by row: float16 (grid * grid, 3), 0..255."""
    grid = len(region) // patch_px
    columns = region.reshape(grid, patch_px, -1).sum(1, dtype=np.uint32)  # whole rows first: 20 times as fast
    means = columns.reshape(grid, grid, patch_px, 3).sum(2) / patch_px**2
    return means.reshape(-1, 3).astype(np.float16)


class PatchEncoder:
    """A frozen encoder with its normalisation, on a device, in a precision.

    batch_size: patches a forward pass.
    """

    def __init__(
        self, model: nn.Module, mean: list[float], std: list[float], precision: str, device: str, batch_size: int
    ) -> None:
        self.model = model.to(device)
        # uint8 pixels: (x / 255 - mean) / std in one multiplication and one addition
        self.scale = (1 / (255 * torch.tensor(std))).view(3, 1, 1).to(device)
        self.shift = (-torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1).to(device)
        self.precision, self.device, self.batch_size = precision, device, batch_size

    @torch.inference_mode()
    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """uint8 (patches, 3, patch_px, patch_px) → float16 (patches, token_dim).

        Raises RuntimeError when a token is not finite.
        """
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device, dtype, enabled=dtype is not torch.float32):
            batches = torch.from_numpy(patches).split(self.batch_size)
            tokens = [self.model(self._normalise(batch.to(self.device))) for batch in batches]
        encoded = torch.cat(tokens).to(torch.float16)
        if not encoded.isfinite().all():
            raise RuntimeError(
                f"the patch encoder gives tokens that float16 cannot hold (in {self.precision}); set "
                "tokens.precision to fp32, or look for values that are not finite in its weights"
            )
        return encoded.cpu().numpy()

    def _normalise(self, pixels: Tensor) -> Tensor:
        return torch.addcmul(self.shift, pixels.float(), self.scale)


def read_regions(slide_path: Path, regions: store.Regions, shrink_jpeg: bool, give_up: bool) -> Iterator[np.ndarray]:
    """The regions' pixels, uint8 (size_px, size_px, 3), the next one read while the last is worked on.

    shrink_jpeg: as in Slide. Raises SlideError when the slide is broken; where its file cannot be read, the same if
    give_up, else OSError.
    """
    if not len(regions.coords):
        return
    size = (regions.size_px, regions.size_px)
    try:
        with Slide(slide_path, regions.slide.mpp, shrink_jpeg) as slide, ThreadPoolExecutor(1) as thread:
            ahead = None
            for x, y in regions.coords.tolist():
                reading = thread.submit(slide.read, (x, y), size, regions.target_mpp)
                if ahead is not None:
                    yield ahead.result()
                ahead = reading
            if ahead is not None:
                yield ahead.result()
    except OSError as error:
        if give_up:
            raise SlideError(f"{slide_path}: cannot be read ({error}); copy it again or leave it out") from error
        raise


def without_regions(regions: store.Regions, reason: str) -> store.Regions:
    """The same slide, quarantined for `reason`, with no regions."""
    slide = replace(regions.slide, status=store.QUARANTINED, reason=reason)
    return replace(regions, slide=slide, coords=regions.coords[:0], tissue_fraction=regions.tissue_fraction[:0])


def run(
    *,
    slide_path: Path,
    regions_path: Path,
    weights_path: Path,
    tokens_path: Path,
    section: config.Tokens,
    device: str,
    quarantine: tuple[type[Exception], ...],
) -> None:
    """Encode a slide's regions; a slide that breaks on the way is quarantined with the reason and keeps none.

    quarantine: the errors that do that, others are raised.
    """
    regions, meta = store.read_regions(regions_path)
    encoder_meta = patch_encoder.metadata(store.read_weights(weights_path)[1])
    grid, dim = regions.size_px // encoder_meta["patch_px"], encoder_meta["token_dim"]
    if regions.size_px % encoder_meta["patch_px"]:
        raise ValueError(
            f"{regions_path}: regions of {regions.size_px} px do not divide into the encoder's patches of "
            f"{encoder_meta['patch_px']} px; make regions.size_px a multiple of patch_encoder.patch_px"
        )
    precision = choose_precision(section.precision, device)
    provenance = store.provenance(
        "tokens", VERSION, section.model_dump(), meta["fingerprint"], encoder_meta["fingerprint"], precision
    )
    provenance |= {
        "precision": precision,
        "encoder_source": encoder_meta["source"],
        "encoder_name": encoder_meta["name"],
    }
    if not len(regions.coords):
        with store.writing_tokens(tokens_path, regions, grid, dim, provenance):
            pass
        return
    model, _ = patch_encoder.load(weights_path)
    encode = PatchEncoder(model, encoder_meta["mean"], encoder_meta["std"], precision, device, section.batch_size)
    log.info("%d regions, %s on %s", len(regions.coords), precision, device)
    pixels = progress(
        read_regions(slide_path, regions, section.shrink_jpeg, OSError in quarantine),
        len(regions.coords),
        regions.slide.slide_id,
        "regions",
    )
    try:
        with store.writing_tokens(tokens_path, regions, grid, dim, provenance) as written:
            for number, region in enumerate(pixels):
                written.tokens[number] = encode(cut_patches(region, encoder_meta["patch_px"]))
                written.colour[number] = mean_colours(region, encoder_meta["patch_px"])
    except SlideError as error:  # what else goes wrong, as writing to a full disk, is not the slide's fault
        if SlideError not in quarantine:
            raise
        log.warning("quarantined: %s", error)
        with store.writing_tokens(tokens_path, without_regions(regions, str(error)), grid, dim, provenance):
            pass
