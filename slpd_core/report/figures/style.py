"""The style that all figures share: colors, lines, fonts, and their PNG files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core import artifacts, config

DPI = 150
# Okabe and Ito's palette, which every kind of color vision can distinguish, without its yellow (too pale) and black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REFERENCE = "0.45"  # gray of references beside the runs: features of patches, chance, ln(out_dim)
PANELS_PER_ROW = 3
GRAYS = (REFERENCE, "0.65", "0.25")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,  # a label may hold dollar signs
}


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Assign each name a line, the same in every figure: colors first, then dashes.

    Args:
        names: Of the lines.

    Returns:
        Name to matplotlib's color and linestyle.
    """
    return {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        for i, name in enumerate(names)
    }


def reference_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Assign each reference beside the runs a gray line: dashes first, then shades; patch tokens are solid.

    Args:
        names: Of the lines.

    Returns:
        Name to matplotlib's color and linestyle.
    """
    ordered = sorted(names, key=lambda name: name != config.PATCH_FEATURES)
    solid = ordered[:1] == [config.PATCH_FEATURES]
    dashes = DASHES[:3]  # chance is dotted
    return {
        name: {"color": GRAYS[i // len(dashes) % len(GRAYS)], "linestyle": dashes[i % len(dashes)]}
        for i, name in enumerate(ordered, start=0 if solid else 1)
    }


def write_figures(out_dir: Path, pngs: Mapping[str, bytes]) -> None:
    """Write figures as {name}.png.

    Args:
        out_dir: Where they are written.
        pngs: By name.
    """
    for name, png in pngs.items():
        with artifacts.atomic_write(out_dir / f"{name}.png") as part:
            part.write_bytes(png)


def grid_shape(n: int, max_columns: int) -> tuple[int, int]:
    """Arrange panels in rows.

    Args:
        n: Number of panels.
        max_columns: Panels per row.

    Returns:
        Rows and columns, at least one each.
    """
    columns = max(1, min(n, max_columns))
    return max(1, -(-n // columns)), columns


def draw_message(axis: Axes, text: str) -> None:
    """Draw a text in place of a panel.

    Args:
        axis: The panel.
        text: Why there is nothing to draw.
    """
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def draw_shared_legend(figure: Figure, columns: int, *, below: bool = False) -> None:
    """Draw one legend of all panels, each label once.

    Args:
        figure: With labeled lines; without any there is no legend.
        columns: Of the legend, at most; long labels have fewer.
        below: Place it below the panels, not above.
    """
    legends = [axis.get_legend_handles_labels() for axis in figure.axes]
    lines = {label: line for drawn, labels in legends for line, label in zip(drawn, labels, strict=True)}
    if lines:
        label_inches = 0.6 + 0.075 * max(map(len, lines))
        figure.legend(
            list(lines.values()),
            list(lines),
            loc="outside lower center" if below else "outside upper center",
            ncols=max(1, min(columns, int(figure.get_figwidth() / label_inches))),
        )


def to_png(figure: Figure) -> bytes:
    """Render a figure.

    Args:
        figure: Drawn within `matplotlib.rc_context(STYLE)`, and rendered there.

    Returns:
        A PNG, the same for the same figure.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
