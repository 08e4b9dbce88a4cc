"""Scores of runs with intervals over groups, and paired differences with p-values. Imports no torch.

The intervals are those of `propl_monai.evaluation.summary`: a difference between two runs on the same case is
summarised just as a score is. Cases of several seeds are stacked; their groups (patients, videos) stay the clusters,
so that one patient seen by three trainings is still one patient, and the mean is that of the per-case means over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab.finished_runs import RunResult
from propl_monai.evaluation.summary import summarise

PERMUTATIONS = 9999
SURE = "mean of the tasks with an interval"
KEY = ["task", "source", "case"]


@dataclass(frozen=True, eq=False)
class Difference:
    """A row minus the row it is set against, on the same cases and seeds.

    Attributes:
        table: as from `score`: its dice and iou (with _low, _high) are differences.
        p: of the difference in the mean Dice over the tasks with an interval, not corrected; None where there is none.
        task_p: like `p` for the Dice of each task, by name.
        seeds: that both rows have.
        spread: standard deviation (n - 1) of the difference in mDice over the seeds; None for a single one.
    """

    table: pd.DataFrame
    p: float | None
    task_p: dict[str, float | None]
    seeds: tuple[int, ...]
    spread: float | None


def score(runs: Sequence[RunResult], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The table of `summarise` over all seeds of one row, indexed by task, "mean" and `SURE`.

    A task of few groups has no interval, and then nor has the mean over all tasks. The line `SURE` is the mean over those
    that have one, with its own; it equals "mean" where all tasks have an interval, or none.
    Counts are over all seeds: three seeds on 100 cases make 300.

    Args:
        runs: the seeds of one variant and fraction.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    return _summary(pd.concat([_rows(run.cases, run.seed) for run in runs]), resamples, seed)


def sure_tasks(table: pd.DataFrame) -> list[str]:
    """The tasks that the line `SURE` of a table from `score` is the mean of: those with an interval, or all."""
    names = [str(name) for name in table.index if name not in ("mean", SURE)]
    return [name for name in names if table.loc[name, "dice_low"] is not None] or names


def seed_spread(runs: Sequence[RunResult]) -> float | None:
    """Standard deviation (n - 1) of the mDice over seeds, in [0, 1]; None for a single seed.

    This is what another training would change; the intervals say what other patients would change.
    """
    return _deviation([_mdice(run) for run in runs])


def difference(
    runs: Sequence[RunResult], against: Sequence[RunResult], resamples: int = 2000, seed: int = 0
) -> Difference | None:
    """A row minus another, paired by case and seed; None if they share no seed."""
    theirs = {run.seed: run for run in against}
    pairs = [(run, theirs[run.seed]) for run in runs if run.seed in theirs]
    if not pairs:
        return None
    frame = pd.concat([_rows(_minus(mine, other), mine.seed) for mine, other in pairs])
    table = _summary(frame, resamples, seed)
    p: dict[str, float | None] = {}
    for line in table.index.drop("mean"):
        known = table.loc[line, "dice_low"] is not None  # as for intervals: none from few groups
        part = frame[frame["task"].isin(sure_tasks(table) if line == SURE else [line])]
        p[str(line)] = sign_flip_p(group_contributions(part), seed) if known else None
    spread = _deviation([_mdice(run) - _mdice(other) for run, other in pairs])
    return Difference(table, p.pop(SURE), p, tuple(run.seed for run, _ in pairs), spread)


def group_contributions(frame: pd.DataFrame) -> NDArray[Any]:
    """What each group adds to the mean over tasks of the mean over cases; they sum up to that mean.

    A group with cases of several tasks (a heart with atrium, ventricle and myocardium) is one number.

    Args:
        frame: columns task, source, group and dice (the difference).
    """
    cases = frame.groupby("task")["dice"].transform("size")
    weight = 1.0 / (cases * frame["task"].nunique())
    return (frame["dice"] * weight).groupby([frame["source"], frame["group"]]).sum().to_numpy()


def sign_flip_p(contributions: NDArray[Any], seed: int = 0) -> float:
    """Two-sided p-value of a sum of group contributions: under "no difference" each might as well have the other sign.

    Exact for 13 groups or fewer, else from 9999 random flips. It tests the very mean that the tables show, with groups
    as units; a rank test on group means would weigh tasks by their number of groups and ask about a median. It is
    `scipy.stats.permutation_test(permutation_type="samples")` as one product of matrices, which takes milliseconds.
    """
    groups = len(contributions)
    exact = 2**groups <= PERMUTATIONS
    if exact:
        signs = np.array(list(product((1.0, -1.0), repeat=groups)))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), (PERMUTATIONS, groups))
    observed = abs(contributions.sum())
    # Sums that are equal but for rounding count as equal.
    extreme = int((np.abs(signs @ contributions) >= observed - 1e-12 * np.abs(contributions).sum()).sum())
    return extreme / len(signs) if exact else (extreme + 1) / (len(signs) + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being several (Holm, Scand. J. Statist. 6:65, 1979); None stays None and does not count.

    Holm and not Benjamini-Hochberg: each row of a table is read as a claim of its own, so the chance of even one false
    claim is what must stay below 5 %; and the rows share the one they are set against, which Holm allows without any
    assumption.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[place] = highest
    return corrected


def _mdice(run: RunResult) -> float:
    return float(run.cases.groupby("task")["dice"].mean().mean())


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _summary(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """The lines of `summarise`, and the line `SURE`."""
    table = summarise(rows, resamples, seed).set_index("task")
    sure, part = sure_tasks(table), table
    if len(sure) < len(table) - 1:
        part = summarise(rows[rows["task"].isin(sure)], resamples, seed).set_index("task")
    table.loc[SURE] = part.loc["mean"]
    return table


def _rows(cases: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The cases of one training. Groups are named before the seed goes into the name of the case."""
    group = cases["group"].where(cases["group"].str.strip() != "", "case " + cases["case"])
    return cases.assign(group=group, case=cases["case"] + f", seed {seed}")


def _minus(run: RunResult, other: RunResult) -> pd.DataFrame:
    """The cases of a run with Dice and IoU replaced by what they are above those of the other."""
    both = run.cases.merge(other.cases[[*KEY, "dice", "iou"]], on=KEY, suffixes=("", "_other"), validate="one_to_one")
    if not len(both) == len(run.cases) == len(other.cases):
        raise ProPLError(run.path, f"other test cases than {other.path}", "run again what lacks cases")
    for name in ("dice", "iou"):
        both[name] -= both.pop(f"{name}_other")
    return both
