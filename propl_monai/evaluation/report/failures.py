"""The cases that went wrong, worst first: those to look at first. Imports no torch."""

from __future__ import annotations

import pandas as pd

from propl_monai.evaluation.grids import Grid

LOWEST = 15  # cases with the lowest Dice
LISTED = 200  # of a kind; the rest is counted
KINDS = {
    "missed": "Missed targets: the reference shows one, the prediction is empty",
    "false alarm": "False alarms: a prediction where the reference is empty",
}
HEAD = ["case", "task", "source", "Dice, %", "reference, px", "prediction, px"]


def failure_grids(cases: pd.DataFrame) -> list[Grid]:
    """Missed targets, false alarms, and the lowest Dice among the cases where both masks hold something.

    Args:
        cases: of `RunFiles`.

    Returns:
        One table per kind, with or without rows: an empty one shows that there were none.
    """
    grids = []
    for status, title in KINDS.items():
        # The largest first: a large target missed is the graver fault.
        size = "reference_pixels" if status == "missed" else "predicted_pixels"
        found = cases[cases["status"] == status].sort_values([size, "case"], ascending=[False, True])
        more = f"; the {LISTED} largest of them" if len(found) > LISTED else ""
        grids.append(Grid(f"{title} ({len(found)}{more})", HEAD, _rows(found[:LISTED])))
    overlapping = cases[cases["status"] == "ok"].sort_values(["dice", "case"])
    lowest = overlapping[:LOWEST]
    title = f"Lowest Dice of the {len(overlapping):,} cases where both masks hold something ({len(lowest)} shown)"
    return [*grids, Grid(title, HEAD, _rows(lowest))]


def _rows(cases: pd.DataFrame) -> list[list[str]]:
    rows = []
    for row in cases.itertuples(index=False):
        pixels = [f"{row.reference_pixels:,}", f"{row.predicted_pixels:,}"]
        rows.append([row.case, row.task, row.source, f"{row.dice * 100:.1f}", *pixels])
    return rows
