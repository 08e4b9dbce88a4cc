"""The look of all figures, and files that come out byte for byte the same.

Colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish; hatches and markers repeat it.
A figure is 720 px wide, the width of a README, with letters large enough to read there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as problem:
    raise ProPLError("matplotlib", "is not installed", "pip install 'propl-monai[lab]'") from problem

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
DPI = 100
WIDTH = 7.2  # inches
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 11),
    **{"legend.fontsize": 10, "font.family": "DejaVu Sans"},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True},
    **{"grid.color": "#DDDDDD", "grid.linewidth": 0.8, "legend.frameon": False, "hatch.linewidth": 0.8},
    **{"figure.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": DPI, "savefig.dpi": DPI},
    "svg.hashsalt": "propl_monai",  # else the ids in the file are random
}


def canvas(columns: int = 1, height: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    """A figure of the common width with axes side by side. Call it inside `matplotlib.rc_context(STYLE)`."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.svg and `stem`.png, without date or version."""
    written = []
    for suffix, metadata in ((".svg", {"Date": None, "Creator": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        path = stem.with_name(stem.name + suffix)
        write_atomically(path, buffer.getvalue())
        written.append(path)
    return written


def note(figure: Figure, text: str) -> None:
    """Write small lines above a figure."""
    figure.suptitle(fill(text, 112), fontsize=8.5, x=0.01, ha="left", color="#444444")


def widen(axes: Axes, least: float = 10.0, axis: Literal["x", "y"] = "y") -> None:
    """Make an axis, of percents by default, span at least so much, so that a small difference does not look large."""
    low, high = axes.get_ylim() if axis == "y" else axes.get_xlim()
    missing = max(0.0, least - (high - low)) / 2
    top = min(100.0, high + missing)
    axes.set(**{f"{axis}lim": (max(0.0, min(low - missing, top - least)), top)})


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the n-th line of a figure."""
    return {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": DASHES[number], "linewidth": 1.6}


def outline(axes: Axes, mask: NDArray[Any], colour: str, dashes: Any, width: float = 1.8, alpha: float = 1.0) -> None:
    """Draw the edge of a mask (H, W), non-zero on the target, over its picture; nothing for an empty one."""
    if not np.any(mask):
        return
    padded = np.pad(np.asarray(mask) > 0, 1)  # an edge at the border of the picture is closed there
    rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
    axes.contour(columns, rows, padded, [0.5], colors=[colour], linestyles=[dashes], linewidths=width, alpha=alpha)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))
