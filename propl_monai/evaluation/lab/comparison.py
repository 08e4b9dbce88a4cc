"""The cells of a comparison of one budget: each a variant at a labelled fraction with all its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from propl_monai import tasks
from propl_monai.data.splits import parse_fraction
from propl_monai.errors import unknown
from propl_monai.evaluation.lab.finished_runs import RunResult, read_runs
from propl_monai.evaluation.lab.statistics import Difference, difference, score, sure_tasks
from propl_monai.evaluation.lab.variants import fraction_of, in_order, table_folder, trained_as, variants

RESAMPLES = 2000
# Trainings of one recipe differ by their seed as well. A p over patients knows nothing of that, so it says something of
# two methods only from several trainings of each, or where both rows are one training, used in two ways.
SEEDS_FOR_P = 3


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
    def tasks(self) -> list[str]:
        """The tasks that were tested."""
        tested = set(self.runs[0].cases["task"])
        return [name for name in tasks.NAMES if name in tested]

    @property
    def sure_tasks(self) -> list[str]:
        """See `statistics.sure_tasks`."""
        return sure_tasks(self.scores)

    @property
    def seeds(self) -> int:
        return len(self.runs)

    def mean(self, key: str) -> float | None:
        """Mean over the seeds of a number of the runs, such as "seconds_training"; None if any has none."""
        values = [getattr(run, key) for run in self.runs]
        return None if None in values else float(np.mean(values))

    @property
    def seed_numbers(self) -> set[int]:
        """Which seeds it has."""
        return {run.seed for run in self.runs}

    def of_seeds(self, seeds: Collection[int]) -> Cell:
        """The same row with these seeds alone."""
        return Cell([run for run in self.runs if run.seed in seeds], self.resamples)

    @property
    def all_images(self) -> int:
        """Training images seen, labelled and unlabelled, mean over seeds."""
        return self.images("labelled") + self.images("unlabelled")

    def images(self, kind: str) -> int:
        """Training images seen, "labelled" or "unlabelled", mean over seeds."""
        return round(float(np.mean([run.images_seen[kind] for run in self.runs])))


class Comparison:
    """The runs of one budget, and the row that the others are set against.

    Args:
        runs: from `read_runs`, of one budget, on the test split or on the same external data.
        against: a variant.
        resamples: of the intervals.
    """

    def __init__(self, runs: Sequence[RunResult], against: str = "supervised", resamples: int = RESAMPLES) -> None:
        self.budget, self.preset, self.against, self.resamples = runs[0].budget, runs[0].preset, against, resamples
        self.datalist, self.split, self.leave_out = runs[0].datalist_sha256, runs[0].split, runs[0].leave_out
        grouped: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
        for run in runs:
            grouped[run.variant, run.fraction].append(run)
        self.cells = {key: Cell(seeds, resamples) for key, seeds in grouped.items()}
        self.names = in_order(variant for variant, _ in self.cells)
        known = {*variants(), *self.names}
        if against not in known:
            raise unknown("--against", "method or control", against, sorted(known))
        self._differences: dict[tuple[str, str, str], Difference | None] = {}

    @property
    def fractions(self) -> list[str]:
        """The labelled fractions of the runs, from few to many; without those that a row fixes itself."""
        chosen = {fraction for name, fraction in self.cells if fraction_of(name, "") == ""}
        return sorted(chosen or {fraction for _, fraction in self.cells}, key=parse_fraction)

    def cell(self, variant: str, fraction: str) -> Cell | None:
        """The cell in a table of that fraction; None if it has not been run. All labels stand in every table."""
        return self.cells.get((variant, fraction_of(variant, fraction)))

    def difference(self, variant: str, fraction: str, against: str | None = None) -> Difference | None:
        """A row minus another, `against` by default, in a table of that fraction; None for that row or one not run."""
        key = variant, fraction, against or self.against
        if key not in self._differences:
            mine, other = self.cell(variant, fraction), self.cell(key[2], fraction)
            possible = mine is not None and other is not None and mine is not other
            found = difference(mine.runs, other.runs, self.resamples) if possible else None  # type: ignore[union-attr]
            if found and len(found.seeds) < SEEDS_FOR_P and trained_as(variant) != trained_as(key[2]):
                found = replace(found, p=None, task_p=dict.fromkeys(found.task_p))
            self._differences[key] = found
        return self._differences[key]


def read_comparisons(
    folder: Path | str, against: str = "supervised", resamples: int = RESAMPLES
) -> dict[str, Comparison]:
    """The runs below a folder, by `variants.table_folder`: other budgets or external data never share a table."""
    homes: dict[str, list[RunResult]] = defaultdict(list)
    for run in read_runs(folder):
        homes[table_folder(run.budget, run.leave_out)].append(run)
    return {home: Comparison(runs, against, resamples) for home, runs in homes.items()}
