"""The figures of a comparison, each from the cells that it needs; a figure whose runs are missing is left out and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from propl_monai.lab import layout, plots
from propl_monai.lab.comparison import RESAMPLES, Cell, Comparison, read_comparisons
from propl_monai.lab.drawing import STYLE, Figure, caption, matplotlib, note, save
from propl_monai.lab.plots import Cells, Key

SECONDS = (
    "Seconds: the fastest epoch of the runs, with its validation, by the clock; other work on their machine may have "
    "slowed them. For times to rely on use a benchmark."
)


@dataclass(frozen=True)
class Plan:
    """One figure.

    Attributes:
        name: of its files, after "figure-".
        needs: cells that it shows.
        draw: from the cells that there are.
        fewest: cells without which it says nothing.
        usable: whether a cell holds what the figure shows.
        caption: small lines above it.
        fractions: labelled fractions without which it says nothing.
    """

    name: str
    needs: tuple[Key, ...]
    draw: Callable[[Cells], Figure]
    fewest: int = 2
    usable: Callable[[Cell], bool] = lambda cell: True
    caption: Callable[[Cells], str] = caption
    fractions: int = 1


def make_figures(
    runs_folder: Path | str, out: Path | str, against: str = "supervised", resamples: int = RESAMPLES
) -> tuple[list[Path], list[str]]:
    """Draw every figure of the runs below a folder as `<out>/<budget>/figure-<name>.svg` and `.png`.

    Args:
        runs_folder: that `propl compare` wrote to, or a folder with its run.json files alone.
        out: folder; made, and files of these names replaced.
        against: the variant that is drawn as a line to compare with.
        resamples: of the bootstrap intervals.

    Returns:
        The files written, and a line for each figure that was left out or drawn without some of its runs.

    Raises:
        ProPLError: see `comparison.read_comparisons`; matplotlib is not installed; a file cannot be written.
    """
    written: list[Path] = []
    lines: list[str] = []
    for budget, comparison in read_comparisons(runs_folder, against, resamples).items():
        if comparison.leave_out:  # the figures are of the test split
            continue
        for plan in plans(comparison):
            cells = {key: cell for key in plan.needs if (cell := comparison.cell(*key)) and plan.usable(cell)}
            absent = ", ".join(
                f"{name} at {fraction}" for name, fraction in plan.needs if (name, fraction) not in cells
            )
            if len(cells) < plan.fewest or len({fraction for _, fraction in cells}) < plan.fractions:
                lines.append(f"{budget}: figure {plan.name} left out, not run or without its numbers: {absent}")
                continue
            if absent:
                lines.append(
                    f"{budget}: figure {plan.name} drawn without what is not run or lacks its numbers: {absent}"
                )
            with matplotlib.rc_context(STYLE):
                figure = plan.draw(cells)
                note(figure, plan.caption(cells))
            written += save(figure, Path(out) / budget / f"figure-{plan.name}")
    return written, lines


def plans(comparison: Comparison) -> list[Plan]:
    """All figures; which rows they show is declared in `lab.layout`."""
    line = comparison.cell(comparison.against, layout.CONTROLS_AT)
    labels = [(name, fraction) for name in layout.LABELS for fraction in layout.FRACTIONS]
    return [
        Plan("prompting", _controls(layout.PROMPTING), lambda cells: plots.named(cells, layout.PROMPTING, line)),
        Plan("passes", _controls(layout.PASSES), plots.passes, caption=_with_seconds),
        Plan("memory", _controls(layout.MEMORY), plots.memory, usable=_has_memory),
        Plan(
            "perturbation",
            _controls(layout.PERTURBATIONS),
            lambda cells: plots.named(cells, layout.PERTURBATIONS, line),
        ),
        Plan("curves", _controls(layout.CURVES), plots.curves, 1, _has_curve, _of_curves),
        Plan("labels", (*labels, (layout.UPPER_BOUND, "1")), plots.labels, fractions=2),
        Plan(
            "text-onehot",
            _controls(layout.TEXT_AGAINST_ONEHOT),
            plots.text_against_onehot,
            caption=_with_seconds,
        ),
    ]


def _controls(names: Iterable[str]) -> tuple[Key, ...]:
    """The cells of variants at the fraction of the controls."""
    return tuple((name, layout.CONTROLS_AT) for name in names)


def _with_seconds(cells: Cells) -> str:
    return caption(cells) + f" {SECONDS}"


def _of_curves(cells: Cells) -> str:
    seeds = sorted({cell.seeds for cell in cells.values()})
    several = f" to {seeds[-1]}; line: their mean, band: from lowest to highest" if seeds[-1] > 1 else ""
    return f"Validation split, all tasks, after each epoch. Trainings (seeds) a line: {seeds[0]}{several}."


def _has_curve(cell: Cell) -> bool:
    return any(len(plots.curve(run)) for run in cell.runs)


def _has_memory(cell: Cell) -> bool:
    return plots.gigabytes(cell) is not None
