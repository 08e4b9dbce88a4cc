"""Finished runs of a comparison, read from their run.json and checked to belong into one table. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai import tasks
from propl_monai.errors import ProPLError, unknown
from propl_monai.splits import parse_fraction
from propl_monai.summary import STATUSES

VERB = "compare"
EXTERNAL = "external"  # in place of the name of a split, where external data were evaluated
OPTIONS = ("variant", "title", "base", "overrides", "labelled_fraction", "seed", "budget", "preset")
RESULTS = (
    *("images_seen", "steps", "seconds_training", "seconds_evaluation", "peak_memory_mb", "parameters", "decoder"),
    *("best_epoch", "best_validation_mdice", "datalist_sha256", "split", "curve", "cases"),
)
NUMBERS = ("hd95_px", "hd95_mm", "hd95_grid", "diagonal_px", "diagonal_grid")
CASE_COLUMNS = ("case", "task", "source", "group", "dice", "iou", "status", *NUMBERS)
RUN_AGAIN = "delete the folder of this run and run it again"


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished run: a variant trained with some of the labels, from one seed, for one budget, and tested.

    Attributes:
        path: of its run.json.
        variant, title, base, overrides: the row, see `lab.variants`.
        fraction: of the train pictures with labels, as "1/8" or "1".
        images_seen: "labelled" and "unlabelled" training images, counted every time they were seen.
        steps, seconds_training, peak_memory_mb, parameters, best_epoch, best_validation_mdice: of the training; None
            where a variant has no training of its own.
        decoder: that predicted: "sd", "pd" or "mean".
        curve: one mapping an epoch: epoch, iteration, seconds, validation mDice by decoder, losses.
        leave_out: the external data that were evaluated and that training did not see; empty for the test split.
        cases: one line a test case with the columns `CASE_COLUMNS`, None as NaN.
    """

    path: Path
    variant: str
    title: str
    base: str
    overrides: Mapping[str, Any]
    fraction: str
    seed: int
    budget: str
    preset: str
    images_seen: Mapping[str, int]
    steps: int | None
    seconds_training: float | None
    seconds_evaluation: float | None
    peak_memory_mb: float | None
    parameters: int | None
    decoder: str
    best_epoch: int | None
    best_validation_mdice: float | None
    datalist_sha256: str
    split: str
    curve: Sequence[Mapping[str, Any]]
    cases: pd.DataFrame
    leave_out: tuple[str, ...] = ()


def read_runs(folder: Path | str) -> list[RunResult]:
    """Every finished run below a folder, sorted by budget, variant, fraction and seed.

    run.json files of other verbs (the training and the evaluation inside a run) and unfinished ones are passed over.

    Raises:
        ProPLError: no such folder; no finished run; a run.json is broken, named in the message; two runs are the same
            cell, or are on different datalists, or on other splits or cases where they left out the same external data, or
        one budget holds two presets.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ProPLError(folder, "is not a folder", "give the folder that `propl compare` wrote to")
    runs = [run for path in sorted(folder.rglob("run.json")) if (run := read_run(path)) is not None]
    if not runs:
        raise ProPLError(folder, "holds no finished run", "run `propl compare` first")
    runs.sort(key=lambda run: (run.budget, run.leave_out, run.variant, parse_fraction(run.fraction), run.seed))
    _check_alike(runs)
    return runs


def read_run(path: Path) -> RunResult | None:
    """The run of a run.json; None if it is of another verb or not finished.

    Raises:
        ProPLError: the file is not what `propl compare` writes.
    """
    content = _json(path)
    if content.get("verb") != VERB or content.get("status") != "finished":
        return None
    options, results = _part(path, content, "options", OPTIONS), _part(path, content, "results", RESULTS)
    values = {key: options[key] for key in OPTIONS if key != "labelled_fraction"}
    values |= {key: results[key] for key in RESULTS if key != "cases"}
    _check_numbers(path, values)
    fraction = str(parse_fraction(options["labelled_fraction"]))
    external = options.get("leave_out") or []
    if not isinstance(external, list) or (results["split"] == EXTERNAL) != bool(external):
        fact = f"leave_out {external!r} in its options, but evaluated on '{results['split']}'"
        raise ProPLError(path, fact, RUN_AGAIN)
    values |= {"fraction": fraction, "leave_out": tuple(external)}
    return RunResult(path=path, cases=_cases(path, results["cases"]), **values)


def cases_frame(runs: Iterable[RunResult]) -> pd.DataFrame:
    """One line a case and run: the columns of `RunResult.cases` after budget, variant, fraction and seed."""
    parts = []
    for run in runs:
        part = run.cases.copy()
        for place, key in enumerate(("budget", "variant", "fraction", "seed")):
            part.insert(place, key, getattr(run, key))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _json(path: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError) as error:
        raise ProPLError(path, f"cannot be read as JSON ({error})", RUN_AGAIN) from error
    if not isinstance(content, dict):
        raise ProPLError(path, "holds no JSON object", RUN_AGAIN)
    return content


def _part(path: Path, content: Mapping[str, Any], name: str, keys: Sequence[str]) -> dict[str, Any]:
    """The options or results, with all their keys."""
    part = content.get(name)
    if not isinstance(part, dict):
        raise ProPLError(path, f"has no {name}", RUN_AGAIN)
    if absent := [key for key in keys if key not in part]:
        raise ProPLError(path, f"{name} without {', '.join(absent)}", RUN_AGAIN)
    return part


def _check_numbers(path: Path, values: Mapping[str, Any]) -> None:
    seen = values["images_seen"]
    wrong = [] if isinstance(seen, dict) and {"labelled", "unlabelled"} <= set(seen) else ["images_seen"]
    for key in ("steps", "seconds_training", "seconds_evaluation", "peak_memory_mb", "parameters", "seed"):
        value = values[key]
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if not fits and (value is not None or key == "seed"):
            wrong.append(key)
    wrong += [key for key, kind in (("curve", list), ("overrides", dict)) if not isinstance(values[key], kind)]
    if wrong:
        raise ProPLError(path, f"{', '.join(wrong)} of another form than `propl compare` writes", RUN_AGAIN)


def _cases(path: Path, columns: Any) -> pd.DataFrame:
    """The table of cases; every fault is told with the name of the file."""
    if not isinstance(columns, dict) or (absent := [name for name in CASE_COLUMNS if name not in columns]):
        what = f"columns {', '.join(absent)}" if isinstance(columns, dict) else "columns"
        raise ProPLError(path, f"cases without {what}", RUN_AGAIN)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or not lengths["case"]:
        raise ProPLError(
            path, f"columns of cases of {min(lengths.values())} to {max(lengths.values())} rows", RUN_AGAIN
        )
    frame = pd.DataFrame(columns)
    for status in frame["status"].unique():
        if status not in STATUSES:
            raise unknown(path, "status", status, STATUSES)
    frame["task"] = [tasks.find(name, path).name for name in frame["task"]]
    try:
        frame = frame.astype(dict.fromkeys(("dice", "iou", *NUMBERS), float))
    except (TypeError, ValueError) as error:
        raise ProPLError(path, f"a score is not a number ({error})", RUN_AGAIN) from error
    if not frame[["dice", "iou"]].apply(lambda column: column.between(0, 1)).all(axis=None):
        raise ProPLError(path, "a Dice or IoU that is missing or not from 0 to 1", RUN_AGAIN)
    return frame


def _check_alike(runs: Sequence[RunResult]) -> None:
    """Refuse what may not stand in one table."""
    firsts: dict[tuple[str, ...], RunResult] = {}
    cells: dict[tuple[Any, ...], RunResult] = {}
    for run in runs:
        first = firsts.setdefault(run.leave_out, run)
        for what, mine, its, other in (
            ("datalist", run.datalist_sha256[:12], runs[0].datalist_sha256[:12], runs[0]),
            ("split", run.split, first.split, first),
        ):
            if mine != its:
                fact = f"tested on the {what} {mine}, but {other.path} on {its}"
                raise ProPLError(run.path, fact, "give a folder whose runs share datalist and split")
        if _case_names(run) != _case_names(first):
            raise ProPLError(run.path, f"other test cases than {first.path}", "run again what lacks cases")
        home = (run.budget, run.leave_out)
        twin = cells.setdefault((*home, run.variant, run.fraction, run.seed), run)
        if twin is not run:
            raise ProPLError(run.path, f"the same variant, fraction, seed and budget as {twin.path}", "delete one")
        _check_same_recipe(run, cells.setdefault((*home, run.variant, run.fraction), run))
        _check_same_preset(run, cells.setdefault(home, run))


def _case_names(run: RunResult) -> set[tuple[str, str, str]]:
    return set(zip(run.cases["task"], run.cases["source"], run.cases["case"], strict=True))


def _check_same_recipe(run: RunResult, other: RunResult) -> None:
    if run.overrides != other.overrides or run.base != other.base:
        raise ProPLError(run.path, f"other options than {other.path}, a seed of the same row", "run both again")


def _check_same_preset(run: RunResult, other: RunResult) -> None:
    if run.preset != other.preset:
        fact = f"preset {run.preset}, but {other.path} has {other.preset}"
        raise ProPLError(run.path, fact, "keep the runs of two presets in two folders")
