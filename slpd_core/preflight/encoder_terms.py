"""Terms of a published patch encoder, and the scale that it was trained at."""

from slpd_core.config.published import PublishedEncoder

MAX_SCALE_RATIO = 1.25  # between um/px seen and trained at; resizing 256 px to 224 alone makes 1.14


def describe_terms(name: str, encoder: PublishedEncoder, *, has_weights: bool) -> str:
    """Describe the license of an encoder, and how to get access to its weights.

    Args:
        name: Of the encoder, as the settings state it.
        encoder: Its line of the table.
        has_weights: Whether its weights are a local file.

    Returns:
        A line.
    """
    line = f"{name}: {encoder.license} ({encoder.page})"
    if encoder.gated and not has_weights:
        line += "; gated: accept its terms there while logged in, then run `hf auth login` or set HF_TOKEN"
    return line


def describe_scale(
    name: str, encoder: PublishedEncoder, *, target_mpp: float, patch_px: int, input_px: int
) -> tuple[bool, str]:
    """Compare the scale of the images that an encoder gets with that of its training.

    Args:
        name: Of the encoder, as the settings state it.
        encoder: Its line of the table.
        target_mpp: um/px of the regions.
        patch_px: Side of a patch in its region.
        input_px: Side that a patch is resized to.

    Returns:
        Whether the scales fit, and a line.
    """
    input_mpp = target_mpp * patch_px / input_px
    line = f"{name} gets patches at {input_mpp:.2g} um/px"
    if not encoder.mpp:
        return True, f"{line}; its authors name none"
    nearest = min(encoder.mpp, key=lambda mpp: abs(mpp - input_mpp))
    trained = " and ".join(f"{mpp:g}" for mpp in encoder.mpp)
    if max(nearest / input_mpp, input_mpp / nearest) <= MAX_SCALE_RATIO:
        return True, f"{line}; trained at {trained}"
    return False, (
        f"{line} (regions.target_mpp {target_mpp:g}, {patch_px} px resized to {input_px}), but was trained at "
        f"{trained}: its tokens may tell less; set regions.target_mpp to {nearest:g}"
    )
