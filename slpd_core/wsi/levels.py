"""Downsample factors of pyramid levels, also where their sizes alone do not tell them."""

import math
from collections.abc import Sequence

ROUNDING_PX = 2  # scanners round a level's sides up, down or to even numbers
MAX_POWER = 16  # of 2: no level is coarser than 1/65536 of level 0
Size = tuple[int, int]


def fit_levels(sizes: Sequence[Size], tiles: Sequence[Size], reported: Sequence[float] | None = None) -> list[float]:
    """Find the downsample factor of each level, also of levels that are padded to whole tiles.

    A level whose width and height imply different factors shows another field than level 0. If its sides are those of
    a level of 1/2, 1/4, 1/8 ... padded to whole tiles, that is its factor; otherwise it cannot be placed.

    Args:
        sizes: (width, height) of each level, px, level 0 first.
        tiles: (width, height) of each level's tiles, px; (0, 0) if unknown.
        reported: Factors that OpenSlide reports. One that is not the mean of the two ratios of sizes comes from the
            scanner and is used.

    Returns:
        Level-0 px per px of each level: 1.0 for level 0, math.inf for a level that cannot be placed or repeats one.
    """
    base, factors = sizes[0], [1.0]
    ratios, fits = (
        [_ratio(base, size) for size in sizes],
        [_padded_factors(base, *level) for level in zip(sizes, tiles, strict=True)],
    )
    is_padded = any(fit and not _is_power(ratio) for ratio, fit in zip(ratios, fits, strict=True))
    for level in range(1, len(sizes)):
        *before, last = [0.0, *(factor for factor in factors if factor < math.inf)]
        factor, fit = ratios[level], fits[level]
        if reported and abs(reported[level] - _mean_ratio(base, sizes[level])) > 1e-6 * reported[level]:
            factor = reported[level]
        elif fit and is_padded:
            factor = fit[0] if len(fit) == 1 else None
        elif factor and len(fit) > 1 and before[-1] and factor / last != last / before[-1]:
            factor = None  # a single tile may be partly empty, except in a pyramid of even steps
        factors.append(factor if factor and factor > last else math.inf)
    return factors


def describe_levels(sizes: Sequence[Size], factors: Sequence[float]) -> tuple[str, ...]:
    """Describe which levels are padded, and which are not read.

    Args:
        sizes: (width, height) of each level, px.
        factors: Of each level, as `fit_levels` returns them.

    Returns:
        Remarks, one sentence each.
    """
    padded = [
        f"level {level} is read as 1/{factor:g}"
        for level, (size, factor) in enumerate(zip(sizes, factors, strict=True))
        if factor < math.inf
        and any(side * factor > whole + ROUNDING_PX * factor for side, whole in zip(size, sizes[0], strict=True))
    ]
    unread = [
        f"{level} ({size[0]} x {size[1]} px)"
        for level, (size, factor) in enumerate(zip(sizes, factors, strict=True))
        if factor == math.inf
    ]
    remarks = [f"Levels are padded to whole tiles: {', '.join(padded)} of level 0."] if padded else []
    if unread:
        remarks.append(
            f"Level {', '.join(unread)} is not read, since it shows another field than level 0 "
            f"({sizes[0][0]} x {sizes[0][1]} px), or repeats one."
        )
    return tuple(remarks)


def clip_size(size: Size, base: Size, factor: float) -> Size:
    """Clip a level to the part that shows level 0 and no padding.

    Args:
        size: (width, height) of the level, px.
        base: (width, height) of level 0, px.
        factor: The level's downsample factor.

    Returns:
        (width, height), px of the level.
    """
    if factor == math.inf:
        return size
    width, height = (min(side, math.ceil(whole / factor - 1e-6)) for side, whole in zip(size, base, strict=True))
    return width, height


def _mean_ratio(base: Size, size: Size) -> float:
    return (base[0] / size[0] + base[1] / size[1]) / 2


def _ratio(base: Size, size: Size) -> float | None:
    """Factor that both sides allow within rounding, if possible a power of 2 or whole; None if there is none."""
    low = max(whole / (side + ROUNDING_PX) for whole, side in zip(base, size, strict=True))
    high = min(
        whole / (side - ROUNDING_PX) if side > ROUNDING_PX else math.inf for whole, side in zip(base, size, strict=True)
    )
    if low > high:
        return None
    longer = 0 if base[0] >= base[1] else 1
    ratio = base[longer] / size[longer]
    whole = (2.0 ** round(math.log2(ratio)), float(round(ratio)))
    return next((factor for factor in whole if low <= factor <= high), min(max(ratio, low), high))


def _is_power(ratio: float | None) -> bool:
    return ratio is not None and ratio.is_integer() and int(ratio) & (int(ratio) - 1) == 0


def _padded_factors(base: Size, size: Size, tile: Size) -> list[float]:
    """Powers of 2 at which level 0, padded to whole tiles, has a level's size."""
    if not all(tile):
        return []
    return [
        2.0**power
        for power in range(1, MAX_POWER + 1)
        if all(
            math.ceil(whole / 2**power / step) * step == side
            for whole, side, step in zip(base, size, tile, strict=True)
        )
    ]
