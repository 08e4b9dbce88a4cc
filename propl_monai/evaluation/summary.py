"""Rows of `propl_monai.evaluation.metrics.case_row` -> tables with counts and intervals. Imports no torch.

No case is left out unseen: missed targets and false alarms are counted beside it, and the "all" columns of HD95
charge each of them the image diagonal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse.csgraph import connected_components

from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import PIXELS, STATUSES, UNITS, check_cases
from propl_monai.evaluation.grids import markdown_table, number, pair, percent
from propl_monai.tasks import known_names

Row = Mapping[str, Any]

MIN_GROUPS = 10  # below, a nominal 95 % interval covers as little as 88 % (simulated, 5 groups)
COUNTS = ("n", "groups", "ok", "missed", "false_alarm", "both_empty")
SCORES = ("dice", "dice_low", "dice_high", "iou", "iou_low", "iou_high", "pooled_dice")
DISTANCES = tuple(f"hd95_{unit}_{kind}" for unit in UNITS for kind in ("hits", "all"))
COLUMNS = ("task", *COUNTS, *SCORES, *DISTANCES, "hd95_mm_n")


def summarise(rows: pd.DataFrame | Iterable[Row], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One line per task, in the order of `tasks.known()`, and a last line "mean" over the tasks, each weighing the same.

    Columns, all of dtype object so that None stays None: task; n cases; groups, the clusters of the intervals; ok,
    missed, false_alarm, both_empty, which add up to n; dice and iou in [0, 1] with the ends _low and _high of their
    95 % intervals; pooled_dice, that of all images of the task as one, 2 TP / (2 TP + FP + FN) of summed pixels, None
    where rows lack counts of pixels; for the unit px, mm and grid: hd95_*_hits, the mean over the cases where it is
    defined, and hd95_*_all, the mean over all cases with a miss, a false alarm or a mask that vanishes on the grid
    counted as the image diagonal and both empty as 0; hd95_mm_n, the cases with known pixel spacing, the only ones in
    the mm columns.

    The interval is a bootstrap over groups (patients, videos): groups are drawn with replacement and the mean over all
    cases of the drawn groups is taken. It is the percentile interval, widened for few groups (Hesterberg, The American
    Statistician 69:371, 2015). Nominal 95 % covered, in simulations with skewed scores, 4 % missed targets and 1-12
    images in a group: 93-96 % with 60 groups or more, 92-95 % with 30, 90-95 % with 10 (plain percentile: 84-90 %, BCa
    no better). For the line "mean", tasks that share groups are drawn together, as their errors go together (drawn
    apart: 88 % in place of 94 %). A task of fewer than `MIN_GROUPS` groups has no interval, and then nor has the mean.
    A mean over tasks is None when one of them has nothing to average: leaving that task out would flatter.

    Args:
        rows: what `case_row` returned, each with case (its id), task (name or code), source (data set) and, where it is
            known, group (the patient or video; the same name in two sources is two groups). A row without a group is
            a group of its own, shared by the tasks that share its source and case.
        resamples: number of bootstrap resamples.
        seed: of the resampling; the same rows in any order give the same table.
    """
    if resamples < 100:
        raise ProPLError("summary", f"{resamples} bootstrap resamples", "give at least 100, better 2000")
    frame = _frame(rows)
    present = [(name, frame[frame["task"] == name]) for name in known_names() if (frame["task"] == name).any()]
    lines = [_line(name, part) | _intervals(part, resamples, seed) for name, part in present]
    lines.append(_mean_line(lines, frame) | _intervals(frame, resamples, seed))
    table = pd.DataFrame(lines, columns=list(COLUMNS), dtype=object)
    table.attrs = {"resamples": resamples, "seed": seed, "convention": frame["convention"].iloc[0]}
    return table


def to_markdown(table: pd.DataFrame, notes: Sequence[str]) -> str:
    """The table of `summarise` for readers: Dice and IoU in percent with intervals, distances to one decimal.

    Args:
        table: from `summarise`.
        notes: what only the caller knows, one line each, printed under the table before the notes on n, intervals
            and empty masks: always `metrics.HD95_DEFINITION`, then for instance the data list, commit and seed.

    Returns:
        GitHub-flavoured Markdown that ends with a line break.
    """
    head = ["task", "n", "groups", "missed", "false alarms", "both empty", "Dice % [95 % CI]", "IoU % [95 % CI]"]
    head += ["pooled Dice %", "HD95 px, hits / all", "HD95 mm, hits / all (n)", "HD95 grid px, hits / all"]
    rows = []
    for row in table.to_dict("records"):
        cells = [str(row[key]) for key in ("task", "n", "groups", "missed", "false_alarm", "both_empty")]
        cells += [percent(row, "dice"), percent(row, "iou"), number(row["pooled_dice"], 100)]
        cells += [pair(row, "hd95_px"), f"{pair(row, 'hd95_mm')} ({row['hd95_mm_n']})", pair(row, "hd95_grid")]
        rows.append(cells)
    return markdown_table(head, rows) + "\n\n" + "\n".join(f"- {note}" for note in [*notes, *_own_notes(table)]) + "\n"


def _frame(rows: pd.DataFrame | Iterable[Row]) -> pd.DataFrame:
    """The rows, checked and sorted, with the names of their clusters (source, unit) and a column of ones to count."""
    frame = check_cases(pd.DataFrame(rows), "summary").sort_values(["task", "source", "case"], ignore_index=True)
    if frame["convention"].nunique() > 1:
        raise ProPLError("summary", "rows of two metric conventions", "make one table for each")
    group = frame["group"] if "group" in frame.columns else pd.Series(index=frame.index, dtype=object)
    alone = group.isna() | (group.astype(str).str.strip() == "")
    return frame.assign(unit=("group " + group.astype(str)).mask(alone, "case " + frame["case"]), one=1.0)


def _line(name: str, part: pd.DataFrame) -> dict[str, Any]:
    """Counts and means of the cases of one task."""
    line: dict[str, Any] = {"task": name} | _counts(part)
    line |= {score: float(part[score].mean()) for score in ("dice", "iou")} | {"pooled_dice": _pooled_dice(part)}
    for unit in UNITS:
        diagonal = part[f"diagonal_{unit}"]
        charged = part[f"hd95_{unit}"].fillna(diagonal).mask(part["status"] == "both empty", 0.0)
        # No diagonal in mm: spacing not known. None where nothing is left to average.
        for kind, values in (("hits", part[f"hd95_{unit}"]), ("all", charged[diagonal.notna()])):
            line[f"hd95_{unit}_{kind}"] = float(values.mean()) if values.notna().any() else None
    return line


def _pooled_dice(part: pd.DataFrame) -> float | None:
    if any(name not in part.columns or part[name].isna().any() for name in PIXELS):
        return None
    reference, predicted, both = (int(part[name].sum()) for name in PIXELS)
    return 2 * both / (reference + predicted) if reference + predicted else 1.0


def _mean_line(lines: list[dict[str, Any]], frame: pd.DataFrame) -> dict[str, Any]:
    """The unweighted mean over the tasks; None where any task has None."""
    values = {key: [line[key] for line in lines] for key in ("dice", "iou", "pooled_dice", *DISTANCES)}
    means = {key: None if None in found else float(np.mean(found)) for key, found in values.items()}
    return {"task": "mean"} | _counts(frame) | means


def _counts(part: pd.DataFrame) -> dict[str, int]:
    """n, groups, the four statuses, and the cases with known pixel spacing."""
    counts = {"n": len(part), "groups": len(part.drop_duplicates(["source", "unit"]))}
    counts |= {status.replace(" ", "_"): int((part["status"] == status).sum()) for status in STATUSES}
    return counts | {"hd95_mm_n": int(part["diagonal_mm"].notna().sum())}


def _intervals(frame: pd.DataFrame, resamples: int, seed: int) -> dict[str, float | None]:
    """The ends of the intervals of Dice and IoU, of one task or of the mean over the tasks in the frame."""
    ends = {score: _interval(frame, score, resamples, seed) for score in ("dice", "iou")}
    return {f"{score}_{end}": value for score in ends for end, value in zip(("low", "high"), ends[score], strict=True)}


def _interval(frame: pd.DataFrame, score: str, resamples: int, seed: int) -> tuple[float | None, float | None]:
    """Cluster-bootstrap interval of the mean over tasks of the mean over cases."""
    table = frame.pivot_table(index=["source", "unit"], columns="task", values=[score, "one"], aggfunc="sum")
    sums, counts = (table[key].fillna(0.0).to_numpy() for key in (score, "one"))  # clusters x tasks
    fewest = int((counts > 0).sum(axis=0).min())
    if fewest < MIN_GROUPS:
        return None, None
    # Tasks with a cluster in common form a block, which is resampled as one; blocks are independent of each other.
    n_blocks, block_of_task = connected_components(counts.T @ counts > 0, directed=False)
    block_of_cluster = block_of_task[(counts > 0).argmax(axis=1)]
    blocks = [np.flatnonzero(block_of_cluster == block) for block in range(n_blocks)]
    observed = sums.sum(axis=0) / counts.sum(axis=0)

    def mean_of_drawn(*drawn: NDArray[Any], axis: int) -> NDArray[Any]:
        # The cluster numbers stand on the last axis; sums and counts add the axis of the tasks behind it.
        places = [block.astype(int) for block in drawn]
        total, n = (np.sum([values[place].sum(axis=-2) for place in places], axis=0) for values in (sums, counts))
        # A rare task of a large block may not be drawn at all (p < exp(-10)): then its observed mean stands in.
        means = np.divide(total, n, out=np.broadcast_to(observed, n.shape).copy(), where=n > 0)
        return means.mean(axis=-1)

    result = stats.bootstrap(
        blocks,
        mean_of_drawn,
        n_resamples=resamples,
        batch=250,  # bounds the memory
        vectorized=True,
        confidence_level=_widened(0.95, fewest),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _widened(level: float, groups: int) -> float:
    """The nominal level at which a percentile interval of few groups has about the right width.

    The plain percentile interval is too narrow by the factor sqrt((n - 1) / n) and for want of Student's t.
    """
    quantile = stats.t.ppf((1 + level) / 2, groups - 1) * np.sqrt(groups / (groups - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


def _own_notes(table: pd.DataFrame) -> list[str]:
    """What a reader of the table must know about n, the intervals and the empty masks."""
    total, made = table.iloc[-1], table.attrs
    empty = "0, and 1 when both are empty"
    if made["convention"] == "released":
        empty = "as in the authors' released code (TP := 1 where TP = 0)"
    n = (
        f"n: images scored, {total['n']} in all: {total['ok']} with both masks non-empty, {total['missed']} missed "
        f"(empty prediction), {total['false_alarm']} false alarms (empty reference), {total['both_empty']} both empty. "
        "Groups: patients or videos; an image without one counts as a group."
    )
    interval = (
        f"[ ]: 95 % percentile interval of a bootstrap over groups ({made['resamples']} resamples, seed "
        f"{made['seed']}), widened for few groups; none below {MIN_GROUPS} groups, and the mean has one only if every "
        "task has. It holds for new patients of these sources and this trained model, not for a new training."
    )
    distances = (
        "HD95 hits: mean over the images where both masks are non-empty. All: a missed target or a false alarm counts "
        "as the image diagonal, both empty as 0. mm: only the n images with known pixel spacing. Grid: both masks "
        "resized to a square; one that vanishes there counts as its diagonal."
    )
    scores = (
        f"Dice and IoU: mean over all n images; where a mask is empty, {empty}. Pooled Dice: of all images of a task as "
        "one, so that large targets weigh more."
    )
    return [n, scores, interval, distances, "Mean: every task weighs the same; – where a task has no value."]
