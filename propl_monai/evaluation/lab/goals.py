"""Whether unlabelled images pay: each method against fixed goals, at three labelled fractions, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from propl_monai import tasks
from propl_monai.evaluation.grids import NONE, Grid, number, percent
from propl_monai.evaluation.lab.comparison import SEEDS_FOR_P, Comparison
from propl_monai.evaluation.lab.render import Table
from propl_monai.evaluation.lab.statistics import SURE
from propl_monai.evaluation.lab.variants import CONTROLS_AT, FRACTIONS, UPPER_BOUND, fraction_of, trained_as

BASELINE, PAPER, NO_PROMPT = "supervised", "propl-paper", "prompt-none"
GAIN = {"1/16": 2.0, "1/8": 2.0, "1/4": 0.0}  # points of mDice, at least
SHARE = {"1/16": 96.0, "1/8": 98.5, "1/4": 99.5}  # percent of the mDice with all labels, at least
BEHIND = 1.0  # points that a task may lose
FALL = 20.0  # points that the heart loses without a prompt, at least
HEART = tuple(tasks.find(code).name for code in ("LA", "LV", "MD"))
ENDS = ("", "_low", "_high")


def goals_table(comparison: Comparison) -> Table | None:
    """One row per method and fraction; None unless the baseline and a method have been run at all three fractions.

    Args:
        comparison: on the test split. Methods are the rows that train with unlabelled images.
    """

    complete = [name for name in comparison.names if all(comparison.cell(name, one) for one in FRACTIONS)]
    trained = [name for name in complete if trained_as(name) == name != PAPER and fraction_of(name, "") == ""]
    methods = [name for name in trained if comparison.cells[name, FRACTIONS[0]].images("unlabelled")]
    if not methods or BASELINE not in complete:
        return None
    rows = [_row(comparison, name, fraction) for name in methods for fraction in FRACTIONS]
    return Table("goals", "Goals: do unlabelled images pay?", rows, [_grid(rows)], _notes(comparison))


def _row(comparison: Comparison, name: str, fraction: str) -> dict[str, Any]:
    """The numbers of a method at a fraction, scores in [0, 1], and which goals it misses."""
    cell, whole = comparison.cells[name, fraction], comparison.cell(UPPER_BOUND, fraction)
    row: dict[str, Any] = {"variant": name, "labelled_fraction": fraction, "images": cell.all_images}
    row |= {"tasks": len(cell.sure_tasks)}
    for key, other in (("baseline", BASELINE), ("paper", PAPER)):
        found = comparison.difference(name, fraction, other)
        row |= {f"{key}_{kind}{end}": None for kind in ("gain", "mdice_gain") for end in ENDS}
        row |= {f"{key}_seeds": len(found.seeds) if found else 0}
        if found:
            for kind, line in (("gain", SURE), ("mdice_gain", "mean")):
                row |= {f"{key}_{kind}{end}": found.table.loc[line, f"dice{end}"] for end in ENDS}
        if found and other == BASELINE:
            worst = min(found.task_p, key=lambda task: found.table.loc[task, "dice"])
            row |= {"worst_task": worst, "worst_gain": found.table.loc[worst, "dice"]}
    share = cell.scores.loc["mean", "dice"] / whole.scores.loc["mean", "dice"] if whole else None
    row |= {"share_of_all_labels": share}
    return row | {"missed": ", ".join(_missed(comparison, row, fraction))}


def _missed(comparison: Comparison, row: Mapping[str, Any], fraction: str) -> list[str]:
    """The goals that a row does not reach; what has not been run is not reached."""
    others = [cell for name in (BASELINE, UPPER_BOUND) if (cell := comparison.cell(name, fraction))]
    share = row["share_of_all_labels"]
    reached = {
        "equally many images": all(cell.all_images == row["images"] for cell in others),
        f"{SHARE[fraction]:g} % of all labels": share is not None and 100 * share >= SHARE[fraction],
        f"no task over {BEHIND:g} point behind": row.get("worst_gain", -1) * 100 >= -BEHIND,
    }
    for key, name in (("baseline", BASELINE), ("paper", PAPER)):
        low, gain = row[f"{key}_gain_low"], row[f"{key}_mdice_gain"]
        reached[f"{SEEDS_FOR_P} seeds with {name}"] = row[f"{key}_seeds"] >= SEEDS_FOR_P
        reached[f"above {name}"] = low is not None and low > 0
        if GAIN[fraction]:
            reached[f"mDice +{GAIN[fraction]:g} over {name}"] = gain is not None and 100 * gain >= GAIN[fraction]
    return [goal for goal, met in reached.items() if not met]


def _grid(rows: list[dict[str, Any]]) -> Grid:
    count = rows[0]["tasks"]
    head = ["method, labels"]
    for name in (BASELINE, PAPER):
        head += [f"{count} tasks against {name} [95 %]", f"mDice against {name}", "seeds"]
    head += ["worst task", "mDice, % of all labels", "images seen", "goals missed"]
    lines = []
    for row in rows:
        line = [f"{row['variant']}, {row['labelled_fraction']}"]
        for key in ("baseline", "paper"):
            gain = number(row[f"{key}_mdice_gain"], 100, sign="+")
            line += [percent(row, f"{key}_gain", "+"), gain, str(row[f"{key}_seeds"])]
        worst = f"{row['worst_task']} {number(row['worst_gain'], 100, sign='+')}" if "worst_task" in row else NONE
        line += [worst, number(row["share_of_all_labels"], 100), f"{row['images']:,}", row["missed"] or "none"]
        lines.append(line)
    return Grid("Goals", head, lines)


def _notes(comparison: Comparison) -> list[str]:
    gains = " and ".join(f"+{gain:g} at {fraction}" for fraction, gain in GAIN.items() if gain)
    shares = ", ".join(f"{share:g} % at {fraction}" for fraction, share in SHARE.items())
    notes = [
        f"Goals: as many images seen as {BASELINE} and {UPPER_BOUND}; over at least {SEEDS_FOR_P} seeds, a paired gain on "
        "the mean of the tasks with an interval whose lower end (over patients or videos) is above 0, and a gain in "
        f"mDice of all tasks of {gains}, both over {BASELINE} and over {PAPER}; no task more than {BEHIND:g} point behind "
        f"{BASELINE}; of the mDice of {UPPER_BOUND} at least {shares}.",
    ]
    if found := comparison.difference(NO_PROMPT, CONTROLS_AT, "propl"):
        fall = -100 * float(np.mean([found.table.loc[name, "dice"] for name in HEART if name in found.table.index]))
        met = "as it should" if fall >= FALL else f"less than the {FALL:g} that it should"
        notes.append(f"Control: without a prompt the heart loses {fall:.1f} points of Dice at {CONTROLS_AT}, {met}.")
    return notes
