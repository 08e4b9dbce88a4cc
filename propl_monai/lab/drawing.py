"""The look of all figures, and files that come out byte for byte the same.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; hatches and markers say the same again.
A figure is 720 px wide, the width of a README, with letters that can be read there.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

from propl_monai.errors import ProPLError
from propl_monai.files import write_atomically
from propl_monai.lab.comparison import Cell
from propl_monai.lab.statistics import SURE

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
    **{
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.labelsize": 11,
        "legend.fontsize": 10,
        "font.family": "DejaVu Sans",
    },
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
    """Write `stem`.svg and `stem`.png, without date or version.

    Raises:
        ProPLError: a file cannot be written.
    """
    written = []
    for suffix, metadata in ((".svg", {"Date": None, "Creator": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        path = stem.with_name(stem.name + suffix)
        write_atomically(path, buffer.getvalue())
        written.append(path)
    return written


def percent(cell: Cell) -> tuple[float, tuple[float, float]]:
    """Mean Dice in percent, and how far its 95 % interval reaches below and above; (0, 0) where there is none.

    The mean is over the tasks with an interval, see `statistics.score`; `mdice_label` and `caption` say which they are.
    """
    mean = cell.scores.loc[SURE]
    if mean["dice_low"] is None:
        return mean["dice"] * 100, (0.0, 0.0)
    # A skewed percentile interval may leave its mean outside; an arm of negative length cannot be drawn.
    arms = (mean["dice"] - mean["dice_low"], mean["dice_high"] - mean["dice"])
    return mean["dice"] * 100, (max(0.0, arms[0] * 100), max(0.0, arms[1] * 100))


def mdice_label(cell: Cell) -> str:
    """What `percent` shows, for an axis."""
    return "mDice, %" if cell.sure_tasks == cell.tasks else f"mean Dice, {len(cell.sure_tasks)} tasks, %"


def caption(cells: Mapping[tuple[str, str], Cell]) -> str:
    """What was tested, how often it was trained, and what the arms are; one sentence each."""
    first = next(iter(cells.values()))
    mean = first.scores.loc["mean"]
    seeds = Counter(cell.seeds for cell in cells.values())
    usual = min(seeds, key=lambda number: (-seeds[number], number))
    other = [f"{cell.seeds} of {name} at {fraction}" for (name, fraction), cell in cells.items() if cell.seeds != usual]
    few = [name for name in first.tasks if name not in first.sure_tasks]
    told = [f"Test split: {mean['n'] // first.seeds:,} images of {mean['groups']:,} patients or videos."]
    trainings = f"Trainings (seeds): {usual}" + (" each" if len(cells) > 1 else "")
    if other:
        trainings += f", but {', '.join(other)}" if len(other) <= 3 else f" to {max(seeds)}, see the tables"
    told.append(trainings + ".")
    told.append("Arms: 95 % interval over patients." if mean_has_arms(first) else "No interval: too few patients.")
    if few:
        told.append(f"Without {', '.join(few)}: too few videos or patients for an interval.")
    return " ".join(told)


def mean_has_arms(cell: Cell) -> bool:
    """Whether what `percent` shows has an interval."""
    return cell.scores.loc[SURE, "dice_low"] is not None


def note(figure: Figure, text: str) -> None:
    """Write small lines above a figure."""
    figure.suptitle(fill(text, 112), fontsize=8.5, x=0.01, ha="left", color="#444444")


def widen(axes: Axes, least: float = 10.0, axis: Literal["x", "y"] = "y") -> None:
    """Make an axis, of percents by default, span at least so much, so that a small difference does not look large."""
    low, high = axes.get_ylim() if axis == "y" else axes.get_xlim()
    missing = max(0.0, least - (high - low)) / 2
    top = min(100.0, high + missing)
    axes.set(**{f"{axis}lim": (max(0.0, min(low - missing, top - least)), top)})


def bars(axes: Axes, labels: Sequence[str], cells: Sequence[Cell]) -> None:
    """Mean Dice of each cell as a bar with its interval and its value at its foot; the axis starts at 0, as bars must."""
    for place, cell in enumerate(cells):
        height, (low, high) = percent(cell)
        axes.bar(place, height, 0.6, color=COLOURS[place], hatch=HATCHES[place], edgecolor="white")
        axes.bar(place, height, 0.6, fill=False, edgecolor="#333333", linewidth=0.8)
        if low or high:
            axes.errorbar(place, height, [[low], [high]], color="#222222", capsize=5, linewidth=1.4)
        # At the foot neither the arm nor a line to compare with can cross it.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2.5}
        axes.text(place, 4, f"{height:.1f}", ha="center", va="bottom", bbox=box, zorder=4)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_ylabel(mdice_label(cells[0]))
    axes.grid(axis="x", visible=False)


def dots(axes: Axes, places: Sequence[float], cells: Sequence[Cell], number: int, label: str | None = None) -> None:
    """Mean Dice of each cell as a marker with its interval, joined by a line."""
    found = [percent(cell) for cell in cells]
    arms = [[low for _, (low, _) in found], [high for _, (_, high) in found]] if mean_has_arms(cells[0]) else None
    axes.errorbar(places, [mean for mean, _ in found], arms, label=label, capsize=4, markersize=7, **look(number))
    axes.set_ylabel(mdice_label(cells[0]))


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the n-th line of a figure."""
    return {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": DASHES[number], "linewidth": 1.6}
