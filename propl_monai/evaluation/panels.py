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
from propl_monai.evaluation.figure_style import (
    COLOURS,
    DASHES,
    DPI,
    STYLE,
    WIDTH,
    Axes,
    Figure,
    matplotlib,
    note,
    outline,
)
from propl_monai.evaluation.metrics import Convention, overlap

Mask = NDArray[Any]
REFERENCE = "#FFFFFF"
DICE_TOLERANCE = 0.05  # another device moves a few pixels of an edge; other weights, pictures or masks move more


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


def check_dice(
    mask: Mask, reference: Mask, known: float, case: str, table: object, cure: str, convention: Convention = "standard"
) -> None:
    """Refuse a predicted mask, bool (H, W), whose Dice is not the one that the table holds.

    Args:
        mask, reference: (H, W), bool.
        known: Dice of the table, in [0, 1].
        case: name of it, for the message.
        table: where the known Dice stands, for the message.
        cure: for the message.
        convention: of the table, see `metrics.case_row`.
    """
    found, _ = overlap(int((mask & reference).sum()), int((mask ^ reference).sum()), convention)
    if abs(found - known) > DICE_TOLERANCE:
        fact = f"has a Dice of {found:.3f} now, {known:.3f} in {table}"
        raise ProPLError(case, fact, f"its weights, picture or mask were changed since; {cure}")


def draw_panels(panels: Sequence[Panel], text: str = "") -> Figure:
    """One column per panel: the picture as it is, and below it, for each row, the picture with both outlines and Dice.

    Args:
        panels: with predictions of the same rows.
        text: small lines above all; the last of them says what the lines in the pictures are.
    """
    names = _checked(panels)
    column = WIDTH / len(panels)
    height = column * max(panel.picture.shape[0] / panel.picture.shape[1] for panel in panels)
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, min(height, 1.2 * column) * (len(names) + 1) + 0.9)
        figure = Figure(figsize=size, layout="constrained", dpi=DPI)
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
    outline(axes, panel.reference, REFERENCE, "-")
    outline(axes, panel.predictions[name], colour, DASHES[1])
    text = f"{panel.dice[name]:.2f}" + ("" if np.any(panel.predictions[name]) else ", nothing predicted")
    box = {"facecolor": "black", "edgecolor": "none", "pad": 2.0}
    axes.text(0.025, 0.04, text, transform=axes.transAxes, color="white", fontsize=10, bbox=box)


def _checked(panels: Sequence[Panel]) -> list[str]:
    """The names of the rows."""
    if not panels:
        raise ProPLError("panels", "none to draw", "give at least one case")
    names = list(panels[0].predictions)
    for panel in panels:
        where = f"panel {panel.name}"
        if list(panel.predictions) != names or set(panel.dice) != set(names):
            raise ProPLError(
                where, f"predictions of {list(panel.predictions)}", f"give those of {names}, with their Dice"
            )
        for mask in (panel.reference, *panel.predictions.values()):
            if mask.shape != panel.picture.shape or mask.ndim != 2:
                fact = f"picture of {panel.picture.shape} with a mask of {mask.shape}"
                raise ProPLError(where, fact, "give arrays of one shape (H, W)")
    return names


def _show(axes: Axes, picture: NDArray[Any]) -> None:
    axes.imshow(picture, cmap="gray", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
