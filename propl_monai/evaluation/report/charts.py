"""The drawings of the report: learning curves and reliability as inline SVG, cases as PNG with outlined masks.

Nothing depends on colour alone: lines differ in marker and dashes too, and each drawing says in words what it shows.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from propl_monai.evaluation.figure_style import DPI, STYLE, Figure, look, matplotlib, outline
from propl_monai.evaluation.report.collect import Shown, TaskCalibration
from propl_monai.tasks import known_names

LOSSES = ("loss", "supervised", "pseudo")
PICTURE_WIDTH = 4.8  # inches: 480 px
YELLOW, INSTEAD = "#F0E442", "#767676"  # a yellow line is lost on white paper
NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
ONE_LINE = {"font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.fontsize": 9}


class Drawing(NamedTuple):
    """An SVG element, which scales with its width, and the caption under it."""

    svg: str
    caption: str


def curves(epochs: Sequence[Mapping[str, Any]], best_epoch: int | None) -> list[Drawing]:
    """Validation mDice of each decoder, validation Dice of each task, and losses, against epochs.

    Args:
        epochs: lines of metrics.jsonl.
        best_epoch: whose weights were kept; None where there was no validation.

    Returns:
        A drawing for each of the three that the run has numbers for.
    """
    validated = [epoch for epoch in epochs if epoch.get("validation")]
    decoders = {name: _points(validated, "validation", name) for name in decoders_of(epochs)}
    tasks = {name: _points(validated, "validation_tasks", name) for name in known_names()}
    losses = {name: [(epoch["epoch"], epoch[name]) for epoch in epochs if name in epoch] for name in LOSSES}
    plans = (
        ("decoders", decoders, "validation mDice, %", best_epoch, "Validation mDice of the decoders"),
        ("tasks", tasks, "validation Dice, %", best_epoch, "Validation Dice of each task, of the decoder best then"),
        ("losses", losses, "loss", None, "Training losses, mean over the steps of an epoch"),
    )
    drawings = []
    for name, lines, label, best, title in plans:
        present = {key: points for key, points in lines.items() if points}
        if present:
            caption = title + (f"; dotted line: epoch {best}, whose weights were kept" if best else "")
            drawings.append(_curve(name, present, label, best, caption))
    return drawings


def reliability(name: str, title: str, part: TaskCalibration) -> Drawing:
    """Frequency of the target against its predicted probability, before and after the temperature.

    Args:
        name: a plain word, unique on the page.
        title: of the drawing.
        part: what to draw.
    """
    with matplotlib.rc_context(STYLE | ONE_LINE):
        figure = Figure(figsize=(3.4, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.plot((0, 100), (0, 100), color="#777777", linestyle=":", linewidth=1.2)
        lines = (("as predicted", part.plain), ("at temperature T", part.scaled))
        for number, (label, drawn) in enumerate(lines):
            if drawn is not None:
                points = np.array(drawn.points()) * 100
                axes.plot(points[:, 1], points[:, 2], label=label, clip_on=False, **_look(number))
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="predicted probability, %", ylabel="pixels that are target, %")
        axes.set_aspect("equal")
        axes.legend(loc="upper left")
    caption = f"{title}: {part.images} pictures, ECE {part.plain.expected_error * 100:.2f} %"
    caption += "" if part.scaled is None else f", at T {part.scaled.expected_error * 100:.2f} %"
    return Drawing(_svg(figure, f"reliability-{name}", f"Reliability diagram. {caption}."), caption)


def overlay(shown: Shown) -> str:
    """The picture of a case with reference (solid, white) and prediction (dashed, orange) as a data URI of a PNG."""
    rows, columns = shown.picture.shape
    figure = Figure(figsize=(PICTURE_WIDTH, PICTURE_WIDTH * rows / columns), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(shown.picture, cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.set_axis_off()
    for mask, colour, dashes in ((shown.reference, "#FFFFFF", "solid"), (shown.prediction, "#E69F00", (0, (4, 2.5)))):
        outline(axes, mask, "#000000", "solid", 4.0, 0.45)  # a darker edge below shows on bright tissue too
        outline(axes, mask, colour, dashes, 2.0)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def decoders_of(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The decoders that were validated, in the order of metrics.jsonl."""
    scores = [epoch.get("validation") or {} for epoch in epochs]
    return [name for name in dict.fromkeys(name for score in scores for name in score) if name != "best_decoder"]


def _points(epochs: Sequence[Mapping[str, Any]], key: str, name: str) -> list[tuple[int, float]]:
    """(epoch, percent) of one entry of a part of metrics.jsonl."""
    return [(epoch["epoch"], epoch[key][name] * 100) for epoch in epochs if epoch.get(key, {}).get(name) is not None]


def _curve(
    name: str, lines: Mapping[str, Sequence[tuple[int, float]]], label: str, best: int | None, caption: str
) -> Drawing:
    with matplotlib.rc_context(STYLE | ONE_LINE):
        figure = Figure(figsize=(4.6, 3.9), layout="constrained")
        axes = figure.subplots()
        for number, (key, points) in enumerate(lines.items()):
            places, heights = zip(*points, strict=True)
            axes.plot(places, heights, label=key, **_look(number))
        if best:
            axes.axvline(best, color="#555555", linestyle=":", linewidth=1.2)
        axes.set(xlabel="epoch", ylabel=label)
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside lower center", ncols=3 if len(lines) <= 3 else 2)
    ends = "; ".join(f"{key} {points[0][1]:.3g} first, {points[-1][1]:.3g} last" for key, points in lines.items())
    return Drawing(_svg(figure, f"curve-{name}", f"Line chart. {caption}. {ends}."), caption)


def _look(number: int) -> dict[str, Any]:
    """Of the n-th line: a dark edge around its markers, so that light colours stand out from white paper too."""
    found = look(number)
    found["color"] = INSTEAD if found["color"] == YELLOW else found["color"]
    return found | {"markersize": 5, "markeredgecolor": "#333333", "markeredgewidth": 0.6}


def _svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an element: no size of its own, names that no other drawing of the page has, and words for ears."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | ONE_LINE):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    text = buffer.getvalue()
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text[text.index("<svg") :])
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(alt)}">{rest}'.strip()
