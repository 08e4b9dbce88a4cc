"""The table of cases: one row per image and task. It is read and checked here and nowhere else. Imports no torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from propl_monai import tasks
from propl_monai.common.files import require_file
from propl_monai.errors import ProPLError, unknown

CASES = "cases.csv"
STATUSES = ("ok", "missed", "false alarm", "both empty")  # of metrics.case_row
UNITS = ("px", "mm", "grid")  # of the three HD95 of a row
DISTANCES = tuple(f"hd95_{unit}" for unit in UNITS)
NUMBERS = ("dice", "iou", *(f"{kind}_{unit}" for unit in UNITS for kind in ("hd95", "diagonal")))
PIXELS = ("reference_pixels", "predicted_pixels", "intersection_pixels")
WORDS = ("case", "task", "source", "status", "convention")
REQUIRED = (*WORDS, *NUMBERS)
DEFAULTS = {"convention": "standard", "diagonal_mm": ""}  # columns that older tables do not have
NEEDED = ["dice", "iou", "diagonal_px", "diagonal_grid"]
EMPTY = {"missed": 0.0, "false alarm": 0.0, "both empty": 1.0}  # standard Dice where a mask is empty
EVALUATE_AGAIN = "evaluate again (`evaluating` of the bundle)"


def read_cases(path: Path, cure: str = EVALUATE_AGAIN) -> pd.DataFrame:
    """The rows of a cases.csv, see `parse_cases`."""
    require_file(path)
    return parse_cases(path.read_bytes(), path, cure)


def parse_cases(text: bytes, where: object, cure: str = EVALUATE_AGAIN) -> pd.DataFrame:
    """The rows of a table of cases, with every value checked.

    Args:
        text: a CSV file with a header, UTF-8.
        where: its name in messages.
        cure: for messages.

    Returns:
        One row per case: case, task (registered name), source, group (may be empty), status and convention as text, so
        that a case may be called NA; dice and iou in [0, 1]; HD95 and diagonals as float, NaN where unknown; the pixel
        counts `PIXELS` as int, where the file has them.
    """
    try:
        frame = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False)
        frame = frame.assign(**{name: value for name, value in DEFAULTS.items() if name not in frame.columns})
        numbers = {name: [float(word or "nan") for word in frame[name]] for name in NUMBERS if name in frame.columns}
        counts = {name: [int(word) for word in frame[name]] for name in PIXELS if name in frame.columns}
    except ValueError as error:  # pandas' own errors of a broken file are ValueErrors too
        raise ProPLError(where, f"is no table of cases ({error})", cure) from error
    if absent := [name for name in (*REQUIRED, "group") if name not in frame.columns]:
        raise ProPLError(where, f"has no column {', '.join(absent)}", cure)
    frame = check_cases(frame.assign(**numbers, **counts), where, cure)
    for name in NUMBERS:
        low, high = frame[name].min(), frame[name].max()
        if low < 0 or (high > 1 and name in ("dice", "iou")):
            fact = f"{name} of {low if low < 0 else high:g}, not from 0{' to 1' if name in ('dice', 'iou') else ''}"
            raise ProPLError(where, fact, cure)
    hit = frame["status"] == "ok"
    wrong = ~hit & frame[list(DISTANCES)].notna().any(axis=1)
    wrong |= ~hit & (frame["convention"] == "standard") & (frame["dice"] != frame["status"].map(EMPTY).astype(float))
    if wrong.any():
        row = frame[wrong].iloc[0]
        fact = f"case {row['case']} is '{row['status']}' with a Dice of {row['dice']:g}, HD95 {row['hd95_px']:g} px"
        raise ProPLError(where, fact, cure)
    return frame


def check_cases(frame: pd.DataFrame, where: object, cure: str = "score it with metrics.case_row") -> pd.DataFrame:
    """Rows of `metrics.case_row`, or differences of two such rows, fit to be summarised.

    Args:
        frame: one row per case, with the columns `REQUIRED`.
        where: its name in messages.
        cure: for messages.

    Returns:
        The rows with registered task names and with floats for numbers, NaN where one is unknown.
    """
    if frame.empty:
        raise ProPLError(where, "no cases in the table", cure)
    if absent := [name for name in REQUIRED if name not in frame.columns]:
        raise ProPLError(where, f"rows without {', '.join(absent)}", cure)
    for row in frame.loc[~frame["status"].isin(STATUSES)].itertuples():
        raise unknown(f"{where}, case {row.case}", "status", row.status, STATUSES)
    numbers = frame[list(NUMBERS)].astype(float)
    broken = numbers.isin([np.inf, -np.inf])
    broken[NEEDED] |= numbers[NEEDED].isna()
    broken["hd95_px"] |= numbers["hd95_px"].isna() & (frame["status"] == "ok")
    for place in np.flatnonzero(broken.any(axis=1)):
        names = ", ".join(numbers.columns[broken.iloc[place]])
        raise ProPLError(where, f"case {frame['case'].iloc[place]}: no finite {names}", cure)
    known = {name: _task(name, frame, where) for name in frame["task"].unique()}
    words: dict[str, Any] = {name: frame[name].astype(str) for name in WORDS}
    frame = frame.assign(**words, **numbers).assign(task=frame["task"].map(known))
    if not (frame["case"].str.strip() != "").all():
        raise ProPLError(where, "a case without a name", cure)
    for row in frame[frame.duplicated(["task", "source", "case"])].itertuples():
        raise ProPLError(where, f"case {row.case}, {row.task}: scored more than once", "keep one row per case and task")
    return frame


def _task(name: str, frame: pd.DataFrame, where: object) -> str:
    return tasks.find(name, f"{where}, case {frame.loc[frame['task'] == name, 'case'].iloc[0]}").name
