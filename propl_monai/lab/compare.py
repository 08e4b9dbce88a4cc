"""The comparison: every run of a grid, once, through the bundle; stopped at any moment and started again, by one or many.

A run is trained and evaluated by the same commands that a user types, in processes of their own, so that memory is
measured for it alone and a crash ends nothing else. What changes between runs is written to a config file in its folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from propl_monai import tasks
from propl_monai.bundle_command import config_file
from propl_monai.checkpoint import STATE
from propl_monai.cohort import DATALIST, external_cases, open_datalist
from propl_monai.datalist import Datalist
from propl_monai.errors import ProPLError
from propl_monai.files import write_atomically
from propl_monai.lab.bundle_process import run_bundle_apart
from propl_monai.lab.claims import Claim
from propl_monai.lab.run_form import read_object, read_part
from propl_monai.lab.summing_up import MEMORY, MODELS, RUN, results_of, unite
from propl_monai.lab.variants import Run, budget, grid, variants
from propl_monai.run_record import RunRecord
from propl_monai.splits import labelled_images

# Keys that must be as in the training.
EVALUATED_WITH = ("spatial_size", "prompt_mode", "prompt_padding", "decoder_block")
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

    def options(self, run: Run) -> dict[str, Any]:
        """What its run.json says was asked."""
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
    lab: Lab,
    methods: Sequence[str],
    labelled: Sequence[str],
    seeds: Sequence[str],
    budget_name: str,
    leave_out: Sequence[str] = (),
) -> Outcome:
    """As `compare`, from words; "all" stands for every method and control, `leave_out` names external data.

    Raises:
        ProPLError: an unknown name, "all" beside other names, a seed that is no number, or what `compare` raises.
    """
    if "all" in methods and len(methods) > 1:
        raise ProPLError("--methods", "'all' is every method and control, and stands beside a name", "give it alone")
    names = list(variants()) if list(methods) == ["all"] else list(methods)
    wrong = [seed for seed in seeds if not (seed.isascii() and seed.isdecimal())]
    if wrong or not (names and labelled and seeds):
        fact = f"'{wrong[0]}' is not a seed" if wrong else "names no method, fraction or seed"
        raise ProPLError(
            "compare", fact, "give lists such as --methods propl,supervised --labelled 1/16,1/8 --seeds 0,1"
        )
    return compare(lab, grid(names, list(labelled), [int(seed) for seed in seeds], budget_name, leave_out))


def compare(lab: Lab, runs: Sequence[Run]) -> Outcome:
    """Do what is not done of a grid; call it again, or in many places at once, until nothing is left.

    Raises:
        ProPLError: the bundle has no such preset, the data are not sound, the run.json of a finished run is broken or it
            was asked for otherwise, or what is left out leaves nothing to learn its task from.
    """
    config_file(lab.bundle, lab.preset)
    for run in runs:
        _check_finished(lab, run)
    given = str(lab.datalist_file) if lab.datalist_file else None
    datalist = open_datalist(str(lab.dataset_dir), given, str(lab.runs), tasks.NAMES)
    if lab.datalist_file is None:  # one for all runs, decoded and checked once
        lab = replace(lab, datalist_file=lab.runs / DATALIST)
    for run in runs:
        _check_external(datalist, run)
    elsewhere, failed = [], []
    broken: dict[str, ProPLError] = {}
    for number, run in enumerate(runs, start=1):
        if lab.is_finished(run):
            continue
        logger.info("run %d of %d: %s", number, len(runs), run.folder)
        try:
            if not _claim_and_do(lab, run, broken):
                elsewhere.append(run.folder)
        except ProPLError as problem:
            logger.error("%s", problem)
            failed.append(problem)
    done = tuple(run.folder for run in runs if lab.is_finished(run))
    return Outcome(done, tuple(folder for folder in elsewhere if folder not in done), tuple(failed))


def _check_finished(lab: Lab, run: Run) -> None:
    """Refuse to take a run of another preset or recipe for the one that is asked for."""
    path = lab.folder(run) / RUN
    if not path.exists():
        return
    then, now = read_part(path, read_object(path), "options", {}), json.loads(json.dumps(lab.options(run)))
    # Titles are words; a key that older runs lack stands for nothing.
    if other := [key for key in now if key != "title" and (then.get(key) or None) != (now[key] or None)]:
        told = ", ".join(f"{key} {then.get(key)!r}, now {now[key]!r}" for key in other)
        raise ProPLError(path, f"was finished with {told}", "give another folder of runs, or delete that run")


def _check_external(datalist: Datalist, run: Run) -> None:
    """Refuse to leave out all that a task could be learnt from: that would test no external data, but an unknown task."""
    if not run.leave_out:
        return
    left = external_cases(datalist, run.leave_out)
    gone, chosen = {case.case_id for case in left}, labelled_images(datalist.cases, run.labelled)
    learnt = {case.task for case in datalist.cases if case.split == "train" and case.case_id in chosen - gone}
    if lost := sorted({case.task for case in left} - learnt):
        fact = f"leaves no labelled picture of {', '.join(lost)} to learn from at {run.labelled} of the labels"
        raise ProPLError("--leave-out " + ",".join(run.leave_out), fact, "leave out some groups of it: SOURCE/GROUP")


def _claim_and_do(lab: Lab, run: Run, broken: dict[str, ProPLError]) -> bool:
    """False when another worker has this run, or the run that it stands on.

    Args:
        lab: where.
        run: to do, after what it stands on.
        broken: why runs failed in this call, by folder; they are not tried again for the next run that stands on them.
    """
    if run.folder in broken:
        raise broken[run.folder]
    if run.base != run and not lab.is_finished(run.base) and not _claim_and_do(lab, run.base, broken):
        return False
    with Claim(lab.folder(run)) as claim:
        if not claim.won:
            return False
        try:
            if not lab.is_finished(run):  # it may have been finished between the look and the claim
                _do(lab, run, claim)
        except ProPLError as problem:
            if claim.won:  # else the run is another worker's now, and may yet be finished
                broken[run.folder] = problem
            raise
        return True


def _do(lab: Lab, run: Run, claim: Claim) -> None:
    """Train and evaluate, part by part, and write run.json last."""
    folder = lab.folder(run)
    record = RunRecord(folder / RUN, "compare", lab.options(run))
    results = unite([_do_part(lab, run, part, claim) for part in _parts(lab, run)])
    # The copy first, so that a stop between the two repeats the evaluation and never loses the copy.
    for place in ([lab.record / run.folder] if lab.record else []) + [folder]:
        record.path = place / RUN
        record.write("finished", results=results)


def _parts(lab: Lab, run: Run) -> list[tuple[str, tuple[str, ...] | None]]:
    """Names of sub-folders and the tasks that are trained there: one part, or one a task."""
    if not run.variant.one_model_a_task:
        return [("", None)]
    return [(tasks.find(name).slug, (name,)) for name in _seen(lab, run)]


def _do_part(lab: Lab, run: Run, part: tuple[str, tuple[str, ...] | None], claim: Claim) -> dict[str, Any]:
    name, chosen = part
    folder = lab.folder(run) / name
    base = lab.folder(run.base) / name
    if run.base == run:
        _train(lab, run, folder, chosen, claim)
    _evaluate(lab, run, folder, base, chosen, claim)
    return results_of(base / "train", folder / "test")


def _train(lab: Lab, run: Run, folder: Path, chosen: tuple[str, ...] | None, claim: Claim) -> None:
    """Train, or go on where a stopped worker left off, and note the peak memory in MB."""
    output = folder / "train"
    keys = {**budget(run.budget), "labelled_fraction": str(run.labelled), "seed": run.seed, **run.variant.train}
    if chosen:
        share = steps_of_tasks(keys["steps_per_epoch"], _seen(lab, run))
        keys |= {"tasks": list(chosen), "steps_per_epoch": share[chosen[0]]}
    keys |= {"leave_out": list(run.leave_out) or None, **dict(lab.overrides or {})}
    presets = [lab.preset] + ([] if run.variant.method == "propl" else [run.variant.method])
    if (output / RUN).exists() and (done := read_object(output / RUN)).get("status") == "finished":
        _check_recipe(lab, presets, keys, output / RUN, read_part(output / RUN, done, "options", {}))
        return
    keys |= {**_places(lab, folder), "output_dir": str(output), "resume": (output / STATE).exists()}
    peak = run_bundle_apart(lab.bundle, "training", ["train", *presets], keys, folder / "train.log", claim.check)
    write_atomically(folder / MEMORY, json.dumps({"peak_memory_mb": peak}).encode())


def _check_recipe(
    lab: Lab, presets: Sequence[str], keys: Mapping[str, Any], path: Path, then: Mapping[str, Any]
) -> None:
    """Refuse a training that ended before its evaluation and was of another recipe than the one that is asked for."""
    asked: dict[str, Any] = {}
    for name in presets:
        asked |= ConfigParser.load_config_file(str(config_file(lab.bundle, name)))
    now = json.loads(json.dumps({**asked, **keys}))
    told = [f"{key} {then[key]!r}, now {now[key]!r}" for key in now if key in then and then[key] != now[key]]
    if told:
        raise ProPLError(path, f"was trained with {', '.join(told)}", "give another folder of runs, or delete that run")


def _seen(lab: Lab, run: Run) -> dict[str, int]:
    """Train pictures, labelled or not, of each task that has any."""
    assert lab.datalist_file is not None, "`compare` makes one"
    datalist = Datalist.read(lab.datalist_file, lab.dataset_dir)
    gone = {case.case_id for case in external_cases(datalist, run.leave_out)} if run.leave_out else set()
    seen = [case.task for case in datalist.cases if case.split == "train" and case.case_id not in gone]
    return {name: seen.count(name) for name in tasks.NAMES if name in seen}


def steps_of_tasks(steps: int, pictures: Mapping[str, int]) -> dict[str, int]:
    """Steps an epoch of one model a task: together what one model for all has, divided as it would see the tasks.

    Args:
        steps: an epoch of one model for all tasks.
        pictures: by task, which that model draws alike. A task has at least one step.
    """
    ends = [round(steps * part / sum(pictures.values())) for part in accumulate(pictures.values())]
    shares = zip(pictures, ends, [0, *ends], strict=False)
    return {name: max(1, end - begin) for name, end, begin in shares}


def _evaluate(lab: Lab, run: Run, folder: Path, base: Path, chosen: tuple[str, ...] | None, claim: Claim) -> None:
    keys = {**run.variant.evaluate, **_places(lab, base), "output_dir": str(folder / "test")}
    keys |= {"external": list(run.leave_out)} if run.leave_out else {}
    trained_with = {**budget(run.budget), **run.base.variant.train, **dict(lab.overrides or {})}
    keys |= {key: trained_with[key] for key in EVALUATED_WITH if key in trained_with}
    keys |= {"tasks": list(chosen)} if chosen else {}
    configs = ["train", lab.preset, "evaluate"]
    run_bundle_apart(lab.bundle, "evaluating", configs, keys, folder / "test.log", claim.check)


def _places(lab: Lab, folder: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(lab.dataset_dir),
        "datalist_file": str(lab.datalist_file),
        "model_dir": str(folder / MODELS),
    }
