"""The figures of a comparison, each from the cells that it needs; what is left out for want of runs is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from propl_monai.evaluation.figure_style import STYLE, Figure, matplotlib, note, save
from propl_monai.evaluation.lab import plots
from propl_monai.evaluation.lab.comparison import Cell, Comparison
from propl_monai.evaluation.lab.plots import Cells, Key, caption
from propl_monai.evaluation.lab.variants import (
    CONTROLS_AT,
    CURVES,
    FRACTIONS,
    LABELS,
    MEMORY,
    PASSES,
    PERTURBATIONS,
    PROMPTING,
    TEXT_AGAINST_ONEHOT,
    UPPER_BOUND,
)

SECONDS = (
    "Seconds: the fastest epoch of a run, with its validation, by the clock; other work on the machine may have "
    "slowed it. For times to rely on use a benchmark."
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
        same_seeds: show of each row the seeds alone that all of them have, so that they differ by what they are.
    """

    name: str
    needs: tuple[Key, ...]
    draw: Callable[[Cells], Figure]
    fewest: int = 2
    usable: Callable[[Cell], bool] = lambda cell: True
    caption: Callable[[Cells], str] = caption
    fractions: int = 1
    same_seeds: bool = True

    def cells(self, comparison: Comparison) -> Cells:
        """What there is to draw, by variant and fraction."""
        found = {key: cell for key in self.needs if (cell := comparison.cell(*key)) and self.usable(cell)}
        shared = set.intersection(*(cell.seed_numbers for cell in found.values())) if found else set()
        return {key: cell.of_seeds(shared) for key, cell in found.items()} if self.same_seeds and shared else found


def make_figures(comparisons: Mapping[str, Comparison], out: Path | str) -> tuple[list[Path], list[str]]:
    """Draw every figure of some runs as `<out>/<budget>/figure-<name>.svg` and `.png`.

    Args:
        comparisons: from `comparison.read_comparisons`; what they are set against is drawn as a line.
        out: folder; made, and files of these names replaced.

    Returns:
        The files written, and a line for each figure that was left out or drawn without some of its runs.
    """
    written: list[Path] = []
    lines: list[str] = []
    for budget, comparison in comparisons.items():
        if comparison.leave_out:  # the figures are of the test split
            continue
        for plan in plans(comparison):
            cells = plan.cells(comparison)
            absent = ", ".join(
                f"{name} at {fraction}" for name, fraction in plan.needs if (name, fraction) not in cells
            )
            left_out = len(cells) < plan.fewest or len({fraction for _, fraction in cells}) < plan.fractions
            if absent:
                fact = "left out, not run or without its numbers"
                if not left_out:
                    fact = "drawn without what is not run or lacks its numbers"
                lines.append(f"{budget}: figure {plan.name} {fact}: {absent}")
            if left_out:
                continue
            with matplotlib.rc_context(STYLE):
                figure = plan.draw(cells)
                note(figure, plan.caption(cells))
            written += save(figure, Path(out) / budget / f"figure-{plan.name}")
    return written, lines


def plans(comparison: Comparison) -> list[Plan]:
    """All figures; which rows they show is declared in `lab.variants`."""
    line = comparison.cell(comparison.against, CONTROLS_AT)
    labels = [(name, fraction) for name in LABELS for fraction in FRACTIONS]
    return [
        Plan("prompting", _controls(PROMPTING), _named(PROMPTING, line)),
        Plan("passes", _controls(PASSES), plots.passes, caption=_with_seconds),
        Plan("memory", _controls(MEMORY), plots.memory, usable=lambda cell: plots.gigabytes(cell) is not None),
        Plan("perturbation", _controls(PERTURBATIONS), _named(PERTURBATIONS, line)),
        Plan("curves", _controls(CURVES), plots.curves, 1, _has_curve, _of_curves, same_seeds=False),
        Plan("labels", (*labels, (UPPER_BOUND, "1")), plots.labels, fractions=2, same_seeds=False),
        Plan("text-onehot", _controls(TEXT_AGAINST_ONEHOT), plots.text_against_onehot, caption=_with_seconds),
    ]


def _controls(names: Iterable[str]) -> tuple[Key, ...]:
    """The cells of variants at the fraction of the controls."""
    return tuple((name, CONTROLS_AT) for name in names)


def _named(names: Mapping[str, str], line: Cell | None) -> Callable[[Cells], Figure]:
    """Bars, and a row to compare with of the same seeds."""

    def draw(cells: Cells) -> Figure:
        seeds = next(iter(cells.values())).seed_numbers
        alike = line is not None and seeds <= line.seed_numbers
        return plots.named(cells, names, line.of_seeds(seeds) if line and alike else line)

    return draw


def _with_seconds(cells: Cells) -> str:
    return caption(cells) + f" {SECONDS}"


def _has_curve(cell: Cell) -> bool:
    return any(len(plots.curve(run)) for run in cell.runs)


def _of_curves(cells: Cells) -> str:
    seeds = sorted({cell.seeds for cell in cells.values()})
    several = f" to {seeds[-1]}; line: their mean, band: from lowest to highest" if seeds[-1] > 1 else ""
    return f"Validation split, all tasks, after each epoch. Trainings (seeds) a line: {seeds[0]}{several}."
