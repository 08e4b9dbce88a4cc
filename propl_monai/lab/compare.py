"""The comparison: every run of a grid, once, through the bundle; stopped at any moment and started again, by one or many.

A run is trained and evaluated by the same commands that a user types, in processes of their own, so that memory is
measured for it alone and a crash ends nothing else. What changes between runs is written to a config file in its folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas

from propl_monai import tasks
from propl_monai.bundle_command import bundle_arguments, config_file
from propl_monai.cohort import DATALIST, open_datalist
from propl_monai.errors import ProPLError
from propl_monai.files import write_atomically
from propl_monai.lab.claims import Claim
from propl_monai.lab.variants import Run, budget, grid, variants
from propl_monai.run_record import RunRecord

RUN = "run.json"
CASE_COLUMNS = (
    "case task source group dice iou status hd95_px hd95_mm hd95_grid diagonal_px diagonal_mm diagonal_grid".split()
)
DIGITS = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lab:
    """Where and on what the runs of a comparison take place.

    Attributes:
        bundle: the bundle folder.
        dataset_dir: folder of the images.
        runs: folder of all runs.
        datalist_file: of `dataset_dir`, verified; None reads the plain layout, verifies it and writes one into `runs`.
        preset: name of a preset in the bundle's configs, such as "compact".
        overrides: config keys for every run, e.g. for a trial with fewer steps.
        record: a folder that gets a copy of each finished run.json, and nothing else.
    """

    bundle: Path
    dataset_dir: Path
    runs: Path
    datalist_file: Path | None = None
    preset: str = "compact"
    overrides: Mapping[str, Any] | None = None
    record: Path | None = None

    def folder(self, run: Run) -> Path:
        return self.runs / run.folder

    def is_finished(self, run: Run) -> bool:
        return (self.folder(run) / RUN).exists()


@dataclass(frozen=True)
class Outcome:
    """What became of the grid.

    Attributes:
        done: folders of runs that are finished, now or before.
        elsewhere: folders of runs that another worker has.
        failed: runs that stopped with an error.
    """

    done: tuple[str, ...]
    elsewhere: tuple[str, ...]
    failed: tuple[ProPLError, ...]


def compare_all(
    lab: Lab, methods: Sequence[str], labelled: Sequence[str], seeds: Sequence[str], budget_name: str
) -> Outcome:
    """As `compare`, from words; "all" stands for every method and control.

    Raises:
        ProPLError: an unknown name, a seed that is no number, or what `compare` raises.
    """
    names = list(variants()) if list(methods) == ["all"] else list(methods)
    wrong = [seed for seed in seeds if not seed.isdigit()]
    if wrong or not (names and labelled and seeds):
        fact = f"'{wrong[0]}' is not a seed" if wrong else "names no method, fraction or seed"
        raise ProPLError(
            "compare", fact, "give lists such as --methods propl,supervised --labelled 1/16,1/8 --seeds 0,1"
        )
    return compare(lab, grid(names, list(labelled), [int(seed) for seed in seeds], budget_name))


def compare(lab: Lab, runs: Sequence[Run]) -> Outcome:
    """Do what is not done of a grid; call it again, or in many places at once, until nothing is left.

    Raises:
        ProPLError: the bundle has no such preset, or the data are not sound.
    """
    config_file(lab.bundle, lab.preset)
    if lab.datalist_file is None:  # one for all runs, decoded and checked once
        open_datalist(str(lab.dataset_dir), None, str(lab.runs), tasks.NAMES)
        lab = replace(lab, datalist_file=lab.runs / DATALIST)
    elsewhere, failed = [], []
    for number, run in enumerate(runs, start=1):
        if lab.is_finished(run):
            continue
        logger.info("run %d of %d: %s", number, len(runs), run.folder)
        try:
            if not _claim_and_do(lab, run):
                elsewhere.append(run.folder)
        except ProPLError as problem:
            logger.error("%s", problem)
            failed.append(problem)
    done = tuple(run.folder for run in runs if lab.is_finished(run))
    return Outcome(done, tuple(folder for folder in elsewhere if folder not in done), tuple(failed))


def _claim_and_do(lab: Lab, run: Run) -> bool:
    """False when another worker has this run, or the run that it stands on."""
    if run.base != run and not lab.is_finished(run.base) and not _claim_and_do(lab, run.base):
        return False
    with Claim(lab.folder(run)) as claim:
        if not claim.won:
            return False
        if not lab.is_finished(run):  # it may have been finished between the look and the claim
            _do(lab, run, claim)
        return True


def _do(lab: Lab, run: Run, claim: Claim) -> None:
    """Train and evaluate, part by part, and write run.json last."""
    folder = lab.folder(run)
    asked = {
        "variant": run.variant.name,
        "title": run.variant.title,
        "base": run.variant.method,
        "overrides": {**run.variant.train, **run.variant.evaluate},
        "labelled_fraction": str(run.labelled),
        "seed": run.seed,
        "budget": run.budget,
        "preset": lab.preset,
        **dict(lab.overrides or {}),
    }
    record = RunRecord(folder / RUN, "compare", asked)
    parts = [_do_part(lab, run, part, claim) for part in _parts(run)]
    results = _unite(parts)
    if lab.record:
        # First, so that a stop between the two repeats the evaluation and never loses the copy.
        copy = RunRecord(lab.record / run.folder / RUN, "compare", asked)
        copy.content = record.content
        copy.write("finished", results=results)
    record.write("finished", results=results)


def _parts(run: Run) -> list[tuple[str, tuple[str, ...] | None]]:
    """Names of sub-folders and the tasks that are trained there: one part, or one a task."""
    if not run.variant.one_model_a_task:
        return [("", None)]
    return [(task.slug, (task.name,)) for task in tasks.TASKS]


def _do_part(lab: Lab, run: Run, part: tuple[str, tuple[str, ...] | None], claim: Claim) -> dict[str, Any]:
    name, chosen = part
    folder = lab.folder(run) / name
    base = lab.folder(run.base) / name
    memory = None
    if run.base == run:
        memory = _train(lab, run, folder, chosen)
        claim.check()
    _evaluate(lab, run, folder, base, chosen)
    claim.check()
    return _results(base / "train", folder / "test", memory)


def _train(lab: Lab, run: Run, folder: Path, chosen: tuple[str, ...] | None) -> float:
    """Train, or go on where a stopped worker left off; the peak memory in MB."""
    keys = {**budget(run.budget), "labelled_fraction": str(run.labelled), "seed": run.seed, **run.variant.train}
    if chosen:
        keys |= {"tasks": list(chosen), "steps_per_epoch": -(-keys["steps_per_epoch"] // len(tasks.TASKS))}
    keys |= {
        **_places(lab, folder),
        "output_dir": str(folder / "train"),
        "resume": (folder / "train" / "checkpoint_last.pt").exists(),
        **dict(lab.overrides or {}),
    }
    if (folder / "train" / RUN).exists() and _read(folder / "train" / RUN)["status"] == "finished":
        return _read(folder / "memory.json")["peak_memory_mb"]
    presets = [lab.preset] + ([] if run.variant.method == "propl" else [run.variant.method])
    peak = _bundle(lab, "training", ["train", *presets], keys, folder / "train.log")
    write_atomically(folder / "memory.json", json.dumps({"peak_memory_mb": peak}).encode())
    return peak


def _evaluate(lab: Lab, run: Run, folder: Path, base: Path, chosen: tuple[str, ...] | None) -> None:
    keys = {**run.variant.evaluate, **_places(lab, base), "output_dir": str(folder / "test")}
    keys |= {key: value for key, value in budget(run.budget).items() if key == "spatial_size"}
    keys |= {key: value for key, value in run.base.variant.train.items() if key in ("prompt_mode", "prompt_padding")}
    keys |= {key: value for key, value in (lab.overrides or {}).items() if key == "spatial_size"}
    keys |= {"tasks": list(chosen)} if chosen else {}
    _bundle(lab, "evaluating", ["train", lab.preset, "evaluate"], keys, folder / "test.log")


def _places(lab: Lab, folder: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(lab.dataset_dir),
        "datalist_file": str(lab.datalist_file),
        "model_dir": str(folder / "models"),
    }


def _bundle(lab: Lab, run_id: str, configs: Sequence[str], keys: Mapping[str, Any], log: Path) -> float:
    """Run the bundle in a process of its own; its peak resident memory in MB.

    Raises:
        ProPLError: it ended with an error; quotes the last line of its log.
    """
    overrides = log.with_suffix(".config.json")
    write_atomically(overrides, json.dumps(keys, indent=2).encode())
    command = [sys.executable, "-m", "monai.bundle", *bundle_arguments(run_id, lab.bundle, [*configs, overrides], {})]
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code:
        raise ProPLError(log, f"the run stopped with exit code {code}: {_last_error(log)}", "read this log")
    # Linux counts in units of 1024 bytes, macOS in bytes.
    return usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def _last_error(log: Path) -> str:
    """The last error of the last traceback in a log; its last line where it tells of none."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["the log is empty"]
    start = max((number for number, line in enumerate(lines) if line.startswith("Traceback")), default=0)
    told = [line for line in lines[start:] if re.match(r"(error|[\w.]+Error|[\w.]+Exception): ", line)]
    return (told or lines)[-1].removeprefix("error: ")


def _results(train: Path, test: Path, memory: float | None) -> dict[str, Any]:
    """What run.json tells of one part."""
    trained, tested = _read(train / RUN), _read(test / RUN)
    options, steps = trained["options"], trained["results"]["steps"]
    unlabelled = options["unlabelled_batch_size"] if trained["results"]["cases"]["unlabelled"] else 0
    words = dict.fromkeys(("case", "task", "source", "group", "status"), str)  # a group named 001 stays that
    cases = pandas.read_csv(test / "cases.csv", dtype=words, keep_default_na=False, na_values=[""])
    return {
        "images_seen": {"labelled": steps * options["labelled_batch_size"], "unlabelled": steps * unlabelled},
        "steps": steps,
        "seconds_training": trained["results"]["seconds_of_all_epochs"],
        "seconds_evaluation": tested["seconds"],
        "peak_memory_mb": memory if memory is not None else _read(train.parent / "memory.json")["peak_memory_mb"],
        "decoder": tested["results"]["about"]["decoder"],
        "best_epoch": trained["results"]["best_epoch"],
        "best_validation_mdice": trained["results"]["best_validation_mdice"],
        "parameters": trained["results"]["parameters"],
        "datalist_sha256": trained["results"]["datalist_sha256"],
        "split": tested["results"]["about"]["split"],
        "curve": [_point(json.loads(line)) for line in (train / "metrics.jsonl").read_text().splitlines()],
        "cases": _columns(cases[CASE_COLUMNS]),
    }


def _columns(cases: pandas.DataFrame) -> dict[str, list]:
    return {name: json.loads(cases[name].to_json(orient="values", double_precision=DIGITS)) for name in cases.columns}


def _point(line: dict[str, Any]) -> dict[str, Any]:
    losses = {key: round(line[key], DIGITS) for key in ("supervised", "pseudo", "uncertainty") if key in line}
    about = {key: line[key] for key in ("epoch", "iteration", "seconds")}
    return {**about, "validation": line.get("validation"), "losses": losses}


def _unite(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several models, one for each task, as one row: sums of work, the largest memory, all cases."""
    if len(parts) == 1:
        return parts[0]
    first, scores = parts[0], [part["best_validation_mdice"] for part in parts]
    total = {
        key: sum(part[key] for part in parts)
        for key in ("steps", "seconds_training", "seconds_evaluation", "parameters")
    }
    return {
        **total,
        "images_seen": {key: sum(part["images_seen"][key] for part in parts) for key in first["images_seen"]},
        "peak_memory_mb": max(part["peak_memory_mb"] for part in parts),
        "decoder": ", ".join(sorted({part["decoder"] for part in parts})),
        "best_epoch": None,
        "best_validation_mdice": None if None in scores else sum(scores) / len(scores),
        "datalist_sha256": first["datalist_sha256"],
        "split": first["split"],
        "curve": [],
        "cases": {name: [value for part in parts for value in part["cases"][name]] for name in first["cases"]},
    }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
