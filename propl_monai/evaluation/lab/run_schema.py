"""The form of a run.json of `propl compare`: what each key holds, checked before anything is made of it. Imports no torch.

run.json is JSON that a hand or a torn disk may have changed: what passes here needs no second look elsewhere.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from propl_monai import tasks
from propl_monai.data.cases import SHA256_PATTERN
from propl_monai.errors import ProPLError, unknown
from propl_monai.evaluation.summary import STATUSES

RUN_AGAIN = "delete the folder of this run and run it again"
LARGEST = 2**53  # the last whole number that all readers of JSON agree on
EMPTY = {"missed": 0.0, "false alarm": 0.0, "both empty": 1.0}  # the Dice where a mask is empty, see metrics.case_row


class Kind(NamedTuple):
    """A kind of value.

    Attributes:
        words: what it is, for messages.
        fits: tells whether a value is one.
    """

    words: str
    fits: Callable[[Any], object]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _text(words: str, pattern: str) -> Kind:
    return Kind(words, lambda value: isinstance(value, str) and re.fullmatch(pattern, value))


def _or_null(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or null", lambda value: value is None or kind.fits(value))


def _list_of(words: str, kind: Kind) -> Kind:
    return Kind(f"a list of {words}", lambda value: isinstance(value, list) and all(map(kind.fits, value)))


def _object(words: str, kinds: Mapping[str, Kind]) -> Kind:
    """A JSON object in which these keys fit; a key that is not there counts as null."""
    return Kind(
        words,
        lambda value: isinstance(value, dict) and all(kind.fits(value.get(key)) for key, kind in kinds.items()),
    )


NUMBER = Kind("a number from 0 to 2^53", _is_number)
WHOLE = Kind("a whole number from 0 to 2^53", lambda value: isinstance(value, int) and _is_number(value))
SHARE = Kind("a number from 0 to 1", lambda value: _is_number(value) and value <= 1)
TEXT = _text("a line of text", r"[^\x00-\x1f\ud800-\udfff]+")
NAME = _text("a name of letters, digits, - and _", r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # names folders of the tables
DECODER = _text("sd, pd or mean", r"(sd|pd|mean)(, (sd|pd|mean))*")  # several of one model a task
VALIDATION = _object("mDice by decoder", dict.fromkeys(("sd", "pd", "mean"), _or_null(SHARE)))
LOSSES = _object("numbers from 0", {"uncertainty": _or_null(NUMBER)})
POINT = _object(
    "objects with iteration, seconds, validation and losses",
    {"iteration": WHOLE, "seconds": NUMBER, "validation": _or_null(VALIDATION), "losses": LOSSES},
)

CONTENT = {"commit": _or_null(TEXT)}
OPTIONS = {
    **{"variant": NAME, "title": TEXT, "base": TEXT, "overrides": _object("an object", {})},
    **{"labelled_fraction": Kind("a fraction", lambda value: isinstance(value, str) or _is_number(value))},
    **{"seed": WHOLE, "budget": NAME, "preset": TEXT, "leave_out": _or_null(_list_of("lines of text", TEXT))},
}
RESULTS = {
    "images_seen": _object("labelled and unlabelled, whole numbers", {"labelled": WHOLE, "unlabelled": WHOLE}),
    **{"steps": _or_null(WHOLE), "seconds_training": _or_null(NUMBER), "seconds_evaluation": _or_null(NUMBER)},
    **{"peak_memory_mb": _or_null(NUMBER), "parameters": _or_null(WHOLE), "decoder": DECODER},
    **{"best_epoch": _or_null(WHOLE), "best_validation_mdice": _or_null(SHARE)},
    **{"datalist_sha256": _text("64 hexadecimal digits", SHA256_PATTERN), "split": TEXT},
    **{"curve": _list_of(POINT.words, POINT), "cases": _object("columns of cases", {})},
    **{"recipe": _object("an object", {}), "commit": _or_null(TEXT)},
}
CASES = {
    **{"case": TEXT, "task": TEXT, "source": TEXT, "group": _or_null(TEXT)},
    **{"dice": SHARE, "iou": SHARE, "status": TEXT},
    **{"hd95_px": _or_null(NUMBER), "hd95_mm": _or_null(NUMBER), "hd95_grid": _or_null(NUMBER)},
    **{"diagonal_px": NUMBER, "diagonal_grid": NUMBER, "diagonal_mm": _or_null(NUMBER)},
}
LATER = ("leave_out", "recipe", "commit", "diagonal_mm")  # older runs do not have them
CASE_COLUMNS = tuple(name for name in CASES if name not in LATER)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ProPLError(path, f"cannot be read as JSON ({error})", RUN_AGAIN) from error
    if not isinstance(content, dict):
        raise ProPLError(path, "holds no JSON object", RUN_AGAIN)
    return content


def read_part(path: Path, content: Mapping[str, Any], name: str, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The options or results of a run.json.

    Args:
        path: of it, for messages.
        content: of it.
        name: "options" or "results".
        kinds: the keys that must be there, but for those of `LATER`, and what they hold.
    """
    part = content.get(name)
    if not isinstance(part, dict):
        raise ProPLError(path, f"has no {name}", RUN_AGAIN)
    if absent := [key for key in kinds if key not in part and key not in LATER]:
        raise ProPLError(path, f"{name} without {', '.join(absent)}", RUN_AGAIN)
    check_values(path, part, kinds)
    return part


def check_values(path: Path, values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Refuse a value of another kind than its key has; keys that are absent are passed over."""
    for key, kind in kinds.items():
        if key in values and not kind.fits(values[key]):
            raise ProPLError(path, f"{key} is {reprlib.repr(values[key])}, not {kind.words}", RUN_AGAIN)


def read_cases(path: Path, columns: Mapping[str, Any]) -> pd.DataFrame:
    """The table of cases: the columns `CASES`, numbers as float, None as NaN, tasks by their registered names.

    Args:
        path: of the run.json, for messages.
        columns: its results' cases.
    """
    if absent := [name for name in CASE_COLUMNS if name not in columns]:
        raise ProPLError(path, f"cases without columns {', '.join(absent)}", RUN_AGAIN)
    known = {name: columns[name] for name in CASES if name in columns}
    if wrong := [name for name, values in known.items() if not isinstance(values, list)]:
        raise ProPLError(path, f"columns of cases that are no lists: {', '.join(wrong)}", RUN_AGAIN)
    lengths = sorted(len(values) for values in known.values())
    if not lengths[0] or lengths[0] != lengths[-1]:
        raise ProPLError(path, f"columns of cases of {lengths[0]} to {lengths[-1]} rows", RUN_AGAIN)
    for name, values in known.items():
        for place, value in enumerate(values):
            if not CASES[name].fits(value):
                fact = f"{name} of case {place + 1} is {reprlib.repr(value)}, not {CASES[name].words}"
                raise ProPLError(path, fact, RUN_AGAIN)
    frame = pd.DataFrame(known)
    frame["task"] = [tasks.find(name, path).name for name in frame["task"]]
    frame = frame.astype({name: float for name in known if name.startswith(("dice", "iou", "hd95", "diagonal"))})
    _check_scores(path, frame)
    return frame


def _check_scores(path: Path, frame: pd.DataFrame) -> None:
    """Refuse an unknown status, a Dice or HD95 that does not go with it, and a case that would count twice."""
    for status in frame["status"].unique():
        if status not in STATUSES:
            raise unknown(path, "status", status, STATUSES)
    hit = frame["status"] == "ok"
    wrong = hit & frame["hd95_px"].isna()
    wrong |= ~hit & (frame["dice"] != frame["status"].map(EMPTY).astype(float))
    wrong |= ~hit & frame[["hd95_px", "hd95_mm", "hd95_grid"]].notna().any(axis=1)
    if wrong.any():
        row = frame[wrong].iloc[0]
        fact = f"case {row['case']} is '{row['status']}' with a Dice of {row['dice']:g}, HD95 {row['hd95_px']:g} px"
        raise ProPLError(path, fact, RUN_AGAIN)
    twice = frame[frame.duplicated(["task", "source", "case"])]
    if len(twice):
        raise ProPLError(path, f"case {twice['case'].iloc[0]} stands there twice", RUN_AGAIN)
