"""The best, the median and the worst case as pictures (Fig. 5). Pictures of patients stay with whoever has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from propl_monai import tasks
from propl_monai.errors import ProPLError
from propl_monai.evaluation.figure_style import COLOURS, DASHES, DPI, STYLE, WIDTH, Axes, Figure, matplotlib, note

Mask = NDArray[Any]
REFERENCE = "#FFFFFF"


@dataclass(frozen=True)
class Panel:
    """One column of pictures: a case, and what each row of a comparison made of it.

    Attributes:
        name: written above it, such as "best".
        picture: (H, W), any range.
        reference: (H, W) mask, non-zero on the target.
        predictions: (H, W) masks by the name of the row that predicted them.
        dice: in [0, 1], by the same names.
    """

    name: str
    picture: NDArray[Any]
    reference: Mask
    predictions: Mapping[str, Mask]
    dice: Mapping[str, float]


def best_median_worst(cases: pd.DataFrame, task: str) -> dict[str, str]:
    """The cases of a task with the highest, the median (lower of two) and the lowest Dice, by these names.

    Chosen by rank alone, ties by name, so that nobody can pick the pictures.

    Args:
        cases: of one run, columns task, case and dice.
        task: name or code.
    """
    name = tasks.find(task).name
    ranked = cases[cases["task"] == name].sort_values(["dice", "case"], ascending=[False, True], ignore_index=True)
    if ranked.empty:
        raise ProPLError(f"task {name}", "has no case in this run", "name a task that was tested")
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    return {rank: str(ranked["case"].iloc[place]) for rank, place in places.items()}


def draw_panels(panels: Sequence[Panel], text: str = "") -> Figure:
    """A column a panel: the picture as it is, and below it once a row with reference, prediction and Dice.

    Args:
        panels: with predictions of the same rows.
        text: small lines above all; the last of them says what the lines in the pictures are.
    """
    names = _checked(panels)
    column = WIDTH / len(panels)
    height = column * max(panel.picture.shape[0] / panel.picture.shape[1] for panel in panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, min(height, 1.2 * column) * (len(names) + 1) + 0.9), layout="constrained", dpi=DPI
        )
        grid = figure.subplots(len(names) + 1, len(panels), squeeze=False)
        for place, panel in enumerate(panels):
            _show(grid[0][place], panel.picture)
            grid[0][place].set_title(panel.name)
            for number, name in enumerate(names):
                _compare(grid[number + 1][place], panel, name, COLOURS[1 + number % (len(COLOURS) - 2)])
        for axes, name in zip(grid[:, 0], ["image", *names], strict=True):
            axes.set_ylabel(fill(name, 22))
        note(figure, " ".join(part for part in (text, "Solid white: reference. Dashed: prediction.") if part))
    return figure


def _compare(axes: Axes, panel: Panel, name: str, colour: str) -> None:
    """One picture with reference, prediction and Dice."""
    _show(axes, panel.picture)
    _outline(axes, panel.reference, REFERENCE, "-")
    _outline(axes, panel.predictions[name], colour, DASHES[1])
    told = f"{panel.dice[name]:.2f}" + ("" if np.any(panel.predictions[name]) else ", nothing predicted")
    box = {"facecolor": "black", "edgecolor": "none", "pad": 2.0}
    axes.text(0.025, 0.04, told, transform=axes.transAxes, color="white", fontsize=10, bbox=box)


def _checked(panels: Sequence[Panel]) -> list[str]:
    """The names of the rows."""
    if not panels:
        raise ProPLError("panels", "none to draw", "give at least one case")
    names = list(panels[0].predictions)
    for panel in panels:
        if list(panel.predictions) != names or set(panel.dice) != set(names):
            raise ProPLError(
                f"panel {panel.name}",
                f"predictions of {list(panel.predictions)}",
                f"give those of {names}, with their Dice",
            )
        for mask in (panel.reference, *panel.predictions.values()):
            if mask.shape != panel.picture.shape or mask.ndim != 2:
                fact = f"picture of {panel.picture.shape} with a mask of {mask.shape}"
                raise ProPLError(f"panel {panel.name}", fact, "give arrays of one shape (H, W)")
    return names


def _show(axes: Axes, picture: NDArray[Any]) -> None:
    axes.imshow(picture, cmap="gray", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _outline(axes: Axes, mask: Mask, colour: str, dash: Any) -> None:
    """The edge of a mask; nothing for an empty one, which has none."""
    if np.any(mask):
        padded = np.pad(np.asarray(mask) > 0, 1)  # an edge at the border of the picture is closed there
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linestyles=[dash], linewidths=1.8)
        axes.set_xlim(-0.5, mask.shape[1] - 0.5)
        axes.set_ylim(mask.shape[0] - 0.5, -0.5)
