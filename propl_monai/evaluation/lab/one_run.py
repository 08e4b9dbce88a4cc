"""One run of a comparison: trained and evaluated by the bundle, and summed up in its run.json.

The commands are those that a user types, in processes of their own, so that memory is measured for a run alone and a
crash ends nothing else. What is its own is written to a config file in its folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from propl_monai import tasks
from propl_monai.common.bundle_command import config_file
from propl_monai.common.bundle_process import run_bundle_apart
from propl_monai.common.config_values import as_config
from propl_monai.common.files import write_atomically
from propl_monai.common.options import words
from propl_monai.common.run_record import RunRecord, read_object
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import external_cases
from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import CASES
from propl_monai.evaluation.lab.finished_runs import RUN_AGAIN, options_of
from propl_monai.evaluation.lab.run_results import MEMORY, MODELS, RUN, results_of, unite
from propl_monai.evaluation.lab.variants import Run, budget
from propl_monai.model.weights import STATE

Check = Callable[[], None]


@dataclass(frozen=True)
class Lab:
    """Where and on what the runs of a comparison take place.

    Attributes:
        bundle: the bundle folder.
        dataset_dir: folder of the images.
        runs: folder of all runs.
        datalist_file: of `dataset_dir`, verified; None reads the plain layout, verifies it and writes one into `runs`.
        preset: name of a preset in the bundle's configs, such as "compact", or several, "compact,strong".
        overrides: config keys for every run, e.g. for a trial with fewer steps.
        record: a folder that gets a copy of run.json and cases.csv of each finished run, and nothing else.
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

    def options(self, run: Run) -> dict[str, Any]:
        """The options in its run.json."""
        return {
            "variant": run.variant.name,
            "title": run.variant.title,
            "base": run.variant.method,
            "overrides": {**run.variant.train, **run.variant.evaluate},
            "labelled_fraction": str(run.labelled),
            "seed": run.seed,
            "budget": run.budget,
            "leave_out": list(run.leave_out),
            "preset": self.preset,
            **dict(self.overrides or {}),
        }


def do_run(lab: Lab, run: Run, check: Check) -> None:
    """Train and evaluate, part by part, and write cases.csv and then run.json.

    Args:
        lab: where.
        run: what; the run that it stands on is finished.
        check: called all the while; what it raises ends the work.
    """
    folder, parts = lab.folder(run), []
    record = RunRecord(folder / RUN, "compare", lab.options(run))
    for name, keys in _parts(lab, run).items():
        base = lab.folder(run.base) / name
        if run.base == run:
            _train(lab, run, base, keys, check)
        _evaluate(lab, run, folder / name, base, keys.get("tasks"), check)
        parts.append(results_of(base / "train", folder / name / "test"))
    results = unite(parts)
    cases = results.pop("cases").to_csv(index=False, lineterminator="\n").encode()
    results["cases_sha256"] = hashlib.sha256(cases).hexdigest()
    # The copy first, so that a stop between the two repeats the evaluation and never loses the copy.
    for place in ([lab.record / run.folder] if lab.record else []) + [folder]:
        write_atomically(place / CASES, cases)
        record.path = place / RUN
        record.write("finished", results=results)


def _parts(lab: Lab, run: Run) -> dict[str, dict[str, Any]]:
    """Config keys of each training, by the sub-folder where it goes: one, or one per task."""
    keys = {**budget(run.budget), "labelled_fraction": str(run.labelled), "seed": run.seed, **run.variant.train}
    if not run.variant.one_model_a_task:
        return {"": keys}
    assert lab.datalist_file is not None, "`compare` makes one"
    datalist = Datalist.read(lab.datalist_file, lab.dataset_dir)
    gone = {case.case_id for case in external_cases(datalist, run.leave_out)}
    seen = [case.task for case in datalist.cases if case.split == "train" and case.case_id not in gone]
    shares = steps_of_tasks(keys["steps_per_epoch"], {name: seen.count(name) for name in tasks.NAMES if name in seen})
    return {tasks.find(name).slug: keys | {"tasks": [name], "steps_per_epoch": steps} for name, steps in shares.items()}


def _train(lab: Lab, run: Run, folder: Path, keys: dict[str, Any], check: Check) -> None:
    """Train, or resume where a stopped worker left off, and note the peak memory in MB."""
    output = folder / "train"
    keys = keys | {"leave_out": list(run.leave_out) or None, **dict(lab.overrides or {})}
    presets = words(lab.preset) + [name for name in (run.variant.network, run.variant.method) if name != "propl"]
    if (output / RUN).exists() and (done := read_object(output / RUN, RUN_AGAIN)).get("status") == "finished":
        _check_recipe(lab, presets, keys, output / RUN, options_of(output / RUN, done))
        return
    keys |= {**_places(lab, folder), "output_dir": as_config(output), "leave_out": as_config(keys["leave_out"])}
    keys |= {"resume": (output / STATE).exists()}
    peak = run_bundle_apart(lab.bundle, "training", ["train", *presets], keys, folder / "train.log", check)
    write_atomically(folder / MEMORY, json.dumps({"peak_memory_mb": peak}).encode())


def _check_recipe(
    lab: Lab, presets: Sequence[str], keys: Mapping[str, Any], path: Path, then: Mapping[str, Any]
) -> None:
    """Refuse a training that ended before its evaluation and was of another recipe than the one that is wanted now."""
    options: dict[str, Any] = {}
    for name in presets:
        options |= ConfigParser.load_config_file(str(config_file(lab.bundle, name)))
    now = json.loads(json.dumps({**options, **keys}))
    if other := [f"{key} {then[key]!r}, now {now[key]!r}" for key in now if key in then and then[key] != now[key]]:
        raise ProPLError(
            path, f"was trained with {', '.join(other)}", "give another folder of runs, or delete that run"
        )


def steps_of_tasks(steps: int, pictures: Mapping[str, int]) -> dict[str, int]:
    """Steps per epoch of one model per task: together those of one model for all, divided as it would see the tasks.

    Args:
        steps: per epoch of one model for all tasks.
        pictures: by task, which that model draws alike. A task has at least one step.
    """
    ends = [round(steps * part / sum(pictures.values())) for part in accumulate(pictures.values())]
    shares = zip(pictures, ends, [0, *ends], strict=False)
    return {name: max(1, end - begin) for name, end, begin in shares}


def _evaluate(lab: Lab, run: Run, folder: Path, base: Path, chosen: list[str] | None, check: Check) -> None:
    """Encoder, size and prompts are those in the header of the weights."""
    keys = {**run.variant.evaluate, **_places(lab, base), "output_dir": as_config(folder / "test")}
    keys |= {"external": as_config(run.leave_out)} if run.leave_out else {}
    keys |= {"tasks": chosen} if chosen else {}
    run_bundle_apart(lab.bundle, "evaluating", ["train", "evaluate"], keys, folder / "test.log", check)


def _places(lab: Lab, folder: Path) -> dict[str, Any]:
    return {
        "dataset_dir": as_config(lab.dataset_dir),
        "datalist_file": as_config(str(lab.datalist_file)),
        "model_dir": as_config(folder / MODELS),
    }
