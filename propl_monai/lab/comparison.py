"""The cells of a comparison of one budget: each a variant at a labelled fraction with all its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from propl_monai.errors import unknown
from propl_monai.lab import layout
from propl_monai.lab.results import RunResult, read_runs
from propl_monai.lab.statistics import Difference, difference, score, seed_spread
from propl_monai.lab.variants import variants

RESAMPLES = 2000


@dataclass(eq=False)
class Cell:
    """All seeds of a variant at a fraction.

    Attributes:
        runs: at least one, by seed.
        resamples: of the intervals.
    """

    runs: Sequence[RunResult]
    resamples: int = RESAMPLES

    @cached_property
    def scores(self) -> pd.DataFrame:
        """See `statistics.score`."""
        return score(self.runs, self.resamples)

    @property
    def title(self) -> str:
        return self.runs[0].title

    @property
    def fraction(self) -> str:
        return self.runs[0].fraction

    @property
    def seeds(self) -> int:
        return len(self.runs)

    @property
    def spread(self) -> float | None:
        """See `statistics.seed_spread`."""
        return seed_spread(self.runs)

    def mean(self, key: str) -> float | None:
        """Mean over the seeds of a number of the runs, such as "seconds_training"; None if any has none."""
        values = [getattr(run, key) for run in self.runs]
        return None if None in values else float(np.mean(values))

    def images(self, kind: str) -> int:
        """Training images seen, "labelled" or "unlabelled", mean over seeds."""
        return round(float(np.mean([run.images_seen[kind] for run in self.runs])))


class Comparison:
    """The runs of one budget, and the row that the others are set against.

    Args:
        runs: from `read_runs`, of one budget.
        against: a variant.
        resamples: of the intervals.

    Raises:
        ProPLError: `against` is neither a variant nor among the runs.
    """

    def __init__(self, runs: Sequence[RunResult], against: str = "supervised", resamples: int = RESAMPLES) -> None:
        self.budget, self.preset, self.against, self.resamples = runs[0].budget, runs[0].preset, against, resamples
        self.datalist, self.split = runs[0].datalist_sha256, runs[0].split
        grouped: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
        for run in runs:
            grouped[run.variant, run.fraction].append(run)
        self.cells = {key: Cell(seeds, resamples) for key, seeds in grouped.items()}
        self.names = layout.in_order(variant for variant, _ in self.cells)
        known = {*variants(), *self.names}
        if against not in known:
            raise unknown("--against", "method or control", against, sorted(known))
        self._differences: dict[tuple[str, str], Difference | None] = {}

    def cell(self, variant: str, fraction: str) -> Cell | None:
        """The cell in a table of that fraction; None if it has not been run. All labels stand in every table."""
        return self.cells.get((variant, layout.fraction_of(variant, fraction)))

    def difference(self, variant: str, fraction: str) -> Difference | None:
        """A row minus `against` in a table of that fraction; None for that row itself, or where either is not run."""
        if (variant, fraction) not in self._differences:
            mine, other = self.cell(variant, fraction), self.cell(self.against, fraction)
            possible = mine is not None and other is not None and mine is not other
            found = difference(mine.runs, other.runs, self.resamples) if possible else None  # type: ignore[union-attr]
            self._differences[variant, fraction] = found
        return self._differences[variant, fraction]


def read_comparisons(
    folder: Path | str, against: str = "supervised", resamples: int = RESAMPLES
) -> dict[str, Comparison]:
    """The runs below a folder, one comparison a budget: trainings of different length never share a table.

    Raises:
        ProPLError: see `read_runs` and `Comparison`.
    """
    budgets: dict[str, list[RunResult]] = defaultdict(list)
    for run in read_runs(folder):
        budgets[run.budget].append(run)
    return {budget: Comparison(runs, against, resamples) for budget, runs in budgets.items()}
