"""Where the levels of a pyramid lie on the slide, when their sizes alone do not say it."""

import math
from collections.abc import Sequence

ROUNDING_PX = 2  # scanners round a level's sides up, down or to even numbers
MAX_POWER = 16  # of 2: no level is coarser than 1/65536 of level 0
Size = tuple[int, int]


def fit_levels(sizes: Sequence[Size], tiles: Sequence[Size], stated: Sequence[float] | None = None) -> list[float]:
    """Find how many level-0 px a px of each level is, also where levels are padded to whole tiles.

    A level whose width and height do not give the same factor shows another field than level 0. Where its sides are
    those of a level of 1/2, 1/4, 1/8 ... filled up to whole tiles, that is its factor; else it cannot be placed.

    Args:
        sizes: (width, height) of each level in px, level 0 first.
        tiles: (width, height) of each level's tiles in px; (0, 0) where they are not known.
        stated: factors that a reader gives. One that is not the mean of the two ratios of sizes was stated by the
            scanner and is believed.

    Returns:
        The factors, 1.0 for level 0 and math.inf for a level that cannot be placed or repeats the one before.
    """
    base, factors = sizes[0], [1.0]
    ratios, fits = (
        [_ratio(base, size) for size in sizes],
        [_padded(base, *one) for one in zip(sizes, tiles, strict=True)],
    )
    is_padded = any(fit and not _is_power(ratio) for ratio, fit in zip(ratios, fits, strict=True))
    for level in range(1, len(sizes)):
        *before, last = [0.0, *(factor for factor in factors if factor < math.inf)]
        factor, fit = ratios[level], fits[level]
        if stated and abs(stated[level] - _mean_ratio(base, sizes[level])) > 1e-6 * stated[level]:
            factor = stated[level]
        elif fit and is_padded:
            factor = fit[0] if len(fit) == 1 else None
        elif factor and len(fit) > 1 and before[-1] and factor / last != last / before[-1]:
            factor = None  # one tile, which may be less than full: only in a pyramid of even steps it is surely full
        factors.append(factor if factor and factor > last else math.inf)
    return factors


def describe_levels(sizes: Sequence[Size], factors: Sequence[float]) -> tuple[str, ...]:
    """Say in a sentence each which levels are padded, and which are not read.

    Args:
        sizes: (width, height) of each level in px.
        factors: of each, as `fit_levels` returns them.
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
    said = [f"Levels are padded to whole tiles: {', '.join(padded)} of level 0."] if padded else []
    if unread:
        said.append(
            f"Level {', '.join(unread)} is not read, since it shows another field than level 0 "
            f"({sizes[0][0]} x {sizes[0][1]} px), or repeats one."
        )
    return tuple(said)


def clip_size(size: Size, base: Size, factor: float) -> Size:
    """Return the part of a level, (width, height) in its px, that shows level 0 and no padding."""
    if factor == math.inf:
        return size
    width, height = (min(side, math.ceil(whole / factor - 1e-6)) for side, whole in zip(size, base, strict=True))
    return width, height


def _mean_ratio(base: Size, size: Size) -> float:
    return (base[0] / size[0] + base[1] / size[1]) / 2


def _ratio(base: Size, size: Size) -> float | None:
    """The factor that both sides allow within rounding, a power of 2 or whole if one is; None without."""
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


def _padded(base: Size, size: Size, tile: Size) -> list[float]:
    """The powers of 2 at which level 0, filled up to whole tiles, has a level's size."""
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
