"""What a training and its evaluation left on disk, read and checked to belong together. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai import tasks
from propl_monai.common.files import file_sha256, require_file
from propl_monai.common.run_record import read_object
from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import CASES, EVALUATE_AGAIN, PIXELS, read_cases

RECORD = "run.json"
RECORD_KEYS = ("verb", "status", "started", "seconds", "command", "versions", "machine", "options", "inputs", "results")


@dataclass(frozen=True, eq=False)
class RunFiles:
    """One training and its evaluation.

    Attributes:
        training, evaluation: the folders.
        training_record, evaluation_record: their run.json.
        epochs: the lines of metrics.jsonl, in order; empty when there is no such file.
        cases: one row per evaluated case, see `cases.parse_cases`.
        table: the rows of the table, by `summary.COLUMNS`, the last one the mean over the tasks.
        notes: what stands under the table.
    """

    training: Path
    evaluation: Path
    training_record: Mapping[str, Any]
    evaluation_record: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    cases: pd.DataFrame
    table: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    @property
    def records(self) -> tuple[tuple[str, Mapping[str, Any]], tuple[str, Mapping[str, Any]]]:
        """The two run.json by the names that the page gives them."""
        return ("training", self.training_record), ("evaluation", self.evaluation_record)

    @property
    def split(self) -> str:
        """The split that was evaluated; says nothing where `external` data were."""
        return str(self.evaluation_record["options"].get("split", "test"))

    @property
    def external(self) -> str | list[str] | None:
        """The external data that were evaluated in place of a split, see `cohort.external_cases`."""
        return self.evaluation_record["options"].get("external") or None

    @property
    def measured_on(self) -> str:
        """What was evaluated, in words."""
        named = [self.external] if isinstance(self.external, str) else self.external
        return f"external data, {', '.join(named)}" if named else f"{self.split} split"

    @property
    def task_names(self) -> list[str]:
        """The evaluated tasks, in the order of the registry."""
        return [name for name in tasks.known_names() if (self.cases["task"] == name).any()]


def read_run_files(training: Path | str, evaluation: Path | str | None = None) -> RunFiles:
    """Read a training folder and the folder of its evaluation.

    Args:
        training: holds run.json and metrics.jsonl.
        evaluation: holds run.json, cases.csv and table.md; `test` inside the training folder when None.
    """
    training = Path(training)
    evaluation = training / "test" if evaluation is None else Path(evaluation)
    trained = _record(training, "train", "name the folder that a training wrote its run.json to")
    evaluated = _record(evaluation, "evaluate", "name the folder of the evaluation with --evaluation")
    path = evaluation / RECORD
    if evaluated["status"] != "finished":
        raise ProPLError(path, f"is of an evaluation that is {evaluated['status']}", EVALUATE_AGAIN)
    table = evaluated["results"].get("table")
    if not isinstance(table, list) or not table:
        raise ProPLError(path, "holds no table in its results", EVALUATE_AGAIN)
    cases = read_cases(evaluation / CASES)
    if absent := [name for name in PIXELS if name not in cases.columns]:
        raise ProPLError(evaluation / CASES, f"has no column {', '.join(absent)}", EVALUATE_AGAIN)
    if table[-1].get("n") != len(cases):
        fact = f"counts {table[-1].get('n')} cases, cases.csv beside it {len(cases)}"
        raise ProPLError(path, fact, EVALUATE_AGAIN)
    require_file(evaluation / "table.md")
    lines = (evaluation / "table.md").read_text(encoding="utf-8").splitlines()
    notes = [line[2:] for line in lines if line.startswith("- ")]
    return RunFiles(training, evaluation, trained, evaluated, _epochs(training / "metrics.jsonl"), cases, table, notes)


def find_input(files: RunFiles, suffix: str, nearby: Sequence[Path], given: Path | None, option: str) -> Path:
    """The file that the evaluation read, as its SHA-256 proves.

    Args:
        files: of the run.
        suffix: of its name, such as ".safetensors".
        nearby: where it usually is; the place that the evaluation wrote down is looked at last.
        given: where the user says it is; nothing else is looked at then.
        option: that gives it, for the message.
    """
    record = files.evaluation / RECORD
    read = [entry for entry in files.evaluation_record["inputs"] if str(entry["path"]).endswith(suffix)]
    if not read:
        raise ProPLError(record, f"names no {suffix} file among its inputs", EVALUATE_AGAIN)
    places = [given] if given is not None else [*nearby, Path(read[0]["path"])]
    for place in places:
        if place.is_file() and file_sha256(place) == read[0]["sha256"]:
            return place
    where = " and ".join(str(place) for place in places)
    fact = f"not the file that was evaluated (SHA-256 {read[0]['sha256'][:12]}…)"
    raise ProPLError(where, fact, f"name it with {option}, or {EVALUATE_AGAIN}")


def _record(folder: Path, verb: str, cure: str) -> dict[str, Any]:
    """The run.json of a folder, with all the keys that the report shows."""
    path = folder / RECORD
    if not path.is_file():
        raise ProPLError(folder, f"holds no {RECORD}", cure)
    content = read_object(path, "run it again")
    absent = [key for key in RECORD_KEYS if key not in content]
    if absent:
        raise ProPLError(path, f"has no {', '.join(absent)}", "run it again")
    if content["verb"] != verb:
        raise ProPLError(path, f"is of the verb '{content['verb']}', not '{verb}'", cure)
    return content


def _epochs(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            epoch = json.loads(line)
            found.append({**epoch, "epoch": int(epoch["epoch"])})
        except (ValueError, KeyError, TypeError) as error:
            fact = f"is no epoch of a training ({type(error).__name__}: {error})"
            raise ProPLError(f"{path}, line {number}", fact, "delete that line, or resume the training") from error
    return found
