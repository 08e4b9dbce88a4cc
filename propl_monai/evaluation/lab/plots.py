"""One function per figure: cells of a comparison in, a matplotlib figure out. Call them inside `rc_context(STYLE)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from numpy.typing import NDArray

from propl_monai.data.splits import parse_fraction
from propl_monai.evaluation.figure_style import COLOURS, HATCHES, Axes, Figure, canvas, look, widen
from propl_monai.evaluation.lab.comparison import Cell
from propl_monai.evaluation.lab.finished_runs import RunResult
from propl_monai.evaluation.lab.statistics import SURE
from propl_monai.evaluation.lab.variants import PASSES, TEXT_AGAINST_ONEHOT

Key = tuple[str, str]  # variant, labelled fraction
Cells = dict[Key, Cell]


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
    sentences = [f"Test split: {mean['n'] // first.seeds:,} images of {mean['groups']:,} patients or videos."]
    trainings = f"Trainings (seeds): {usual}" + (" each" if len(cells) > 1 else "")
    if other:
        trainings += f", but {', '.join(other)}" if len(other) <= 3 else f" to {max(seeds)}, see the tables"
    sentences.append(trainings + ".")
    sentences.append("Arms: 95 % interval over patients." if mean_has_arms(first) else "No interval: too few patients.")
    if few:
        sentences.append(f"Without {', '.join(few)}: too few videos or patients for an interval.")
    return " ".join(sentences)


def mean_has_arms(cell: Cell) -> bool:
    """Whether what `percent` shows has an interval."""
    return cell.scores.loc[SURE, "dice_low"] is not None


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


def named(cells: Cells, names: Mapping[str, str], line: Cell | None) -> Figure:
    """Mean Dice as bars with intervals (Fig. 2, and kinds of perturbation), and a row to compare with as a line."""
    figure, (axes,) = canvas()
    bars(axes, [names[variant] for variant, _ in cells], list(cells.values()))
    if line is not None:
        height = percent(line)[0]
        axes.axhline(height, color="#222222", linestyle="--", linewidth=1.2, zorder=3)
        label = f"- - -  {line.runs[0].title}: {height:.1f}"
        axes.text(1.0, 1.02, label, transform=axes.transAxes, ha="right", va="bottom", fontsize=10)
    return figure


def passes(cells: Cells) -> Figure:
    """N of UPLC against mean Dice, seconds per epoch and peak memory, with the cost of one more pass (Fig. 3)."""
    places = [PASSES[variant] for variant, _ in cells]
    found = list(cells.values())
    figure, (scores, seconds, memory) = canvas(3, 2.9)
    dots(scores, places, found, 0)
    widen(scores)
    _line(seconds, places, [seconds_an_epoch(cell) for cell in found], 1, "seconds an epoch", "s")
    _line(memory, places, [gigabytes(cell) for cell in found], 2, "peak memory, GB", "MB", 1024)
    for axes in (scores, seconds, memory):
        axes.set_xticks(places)
        axes.set_xlabel("N, passes of UPLC")
    return figure


def memory(cells: Cells) -> Figure:
    """Mean Dice against the peak memory of training (Fig. 4)."""
    figure, (axes,) = canvas(height=4.4)
    for number, cell in enumerate(cells.values()):
        place = gigabytes(cell) or 0.0
        height, (low, high) = percent(cell)
        axes.errorbar(place, height, [[low], [high]], color="#BBBBBB", capsize=3, linewidth=1, zorder=1)
        shown = look(number) | {"linestyle": "none", "markersize": 9, "markeredgecolor": "#222222"}
        axes.plot(place, height, label=fill(cell.runs[0].title, 46), **shown)
        axes.set_ylabel(mdice_label(cell))
    axes.set_xlabel("peak memory of the training process, GB")
    axes.margins(x=0.15)
    widen(axes, 0.5, axis="x")
    widen(axes)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def curves(cells: Cells) -> Figure:
    """Validation mDice against training images seen; with several seeds their mean, and a band from lowest to highest."""
    figure, (axes,) = canvas(height=3.9)
    for number, cell in enumerate(cells.values()):
        drawn = [points for run in cell.runs if len(points := curve(run))]
        shortest = min(len(points) for points in drawn)
        images, heights = drawn[0][:shortest, 0], np.array([points[:shortest, 1] for points in drawn])
        axes.plot(images, heights.mean(axis=0), markersize=6, label=cell.runs[0].title, **look(number))
        if len(drawn) > 1:
            axes.fill_between(images, heights.min(0), heights.max(0), color=COLOURS[number], alpha=0.2, linewidth=0)
    axes.set_xlabel("training images seen, labelled and unlabelled")
    axes.set_ylabel("validation mDice, %")
    widen(axes)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def labels(cells: Cells) -> Figure:
    """Mean Dice against the share of labelled images, on a logarithmic axis."""
    figure, (axes,) = canvas(height=3.8)
    ticks = sorted({parse_fraction(fraction) for _, fraction in cells})
    for number, name in enumerate(dict.fromkeys(variant for variant, _ in cells)):
        mine = {fraction: cell for (variant, fraction), cell in cells.items() if variant == name}
        # Rows lie a little apart, so that their intervals do not cover each other.
        places = [float(parse_fraction(fraction)) * (1 + 0.04 * (number - 1)) for fraction in mine]
        dots(axes, places, list(mine.values()), number, next(iter(mine.values())).runs[0].title)
    axes.set_xscale("log", base=2)
    axes.set_xticks([float(tick) for tick in ticks], [str(tick) if tick != 1 else "all" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("share of the training images with labels")
    widen(axes)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def text_against_onehot(cells: Cells) -> Figure:
    """Text prompts against one-hot tasks: mean Dice, and seconds per epoch."""
    figure, (scores, seconds) = canvas(2, 3.2)
    names = [TEXT_AGAINST_ONEHOT[variant] for variant, _ in cells]
    bars(scores, names, list(cells.values()))
    heights = [seconds_an_epoch(cell) for cell in cells.values()]
    for place, height in enumerate(heights):
        if height is not None:
            seconds.bar(place, height, 0.6, color=COLOURS[place], edgecolor="#333333", linewidth=0.8)
            seconds.text(place, height * 1.02, f"{height:.1f}", ha="center", va="bottom")
    seconds.set_xticks(range(len(names)), names)
    seconds.set_xlim(-0.6, len(names) - 0.4)
    seconds.margins(y=0.15)
    seconds.set_ylabel("seconds an epoch")
    seconds.grid(axis="x", visible=False)
    return figure


def _line(
    axes: Axes, places: list[int], values: list[float | None], number: int, label: str, unit: str, scale: float = 1.0
) -> None:
    """A cost against N, and the slope of a straight line through it in words."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    axes.plot([place for place, _ in known], [value for _, value in known], markersize=7, **look(number))
    axes.set_ylim(0, 1.25 * max((value for _, value in known), default=1.0))
    axes.set_ylabel(label)
    if len(known) > 1:
        points = np.array(known)
        slope = np.polyfit(points[:, 0], points[:, 1], 1)[0] * scale
        axes.text(0.5, 0.97, f"{slope:+.1f} {unit} a pass", transform=axes.transAxes, ha="center", va="top")


def curve(run: RunResult) -> NDArray[np.float64]:
    """(points, 2): images seen and validation mDice in percent of the decoder that predicts, where it was validated."""
    if not run.steps:
        return np.empty((0, 2))
    images_a_step = sum(run.images_seen[kind] for kind in ("labelled", "unlabelled")) / run.steps
    points = []
    for point in run.curve:
        validation = point.get("validation") or {}
        if validation.get(run.decoder) is not None:
            points.append((point["iteration"] * images_a_step, validation[run.decoder] * 100))
    return np.array(points).reshape(-1, 2)


def seconds_an_epoch(cell: Cell) -> float | None:
    """Of the fastest epoch with its validation, mean over seeds: other work of the machine only makes an epoch slower."""
    fastest = [min(point["seconds"] for point in run.curve) for run in cell.runs if run.curve]
    return float(np.mean(fastest)) if fastest else None


def gigabytes(cell: Cell) -> float | None:
    """Peak memory of the training process, mean over seeds; None where a run has none."""
    megabytes = cell.mean("peak_memory_mb")
    return None if megabytes is None else megabytes / 1024
