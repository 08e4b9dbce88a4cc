"""The comparison: every run of a grid, once; it can be stopped at any moment and resumed, by one worker or many."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from propl_monai import tasks
from propl_monai.common.bundle_command import config_file
from propl_monai.common.claims import Claim
from propl_monai.common.run_record import read_object
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import labelled_images
from propl_monai.datasets.cohort import DATALIST, external_cases, open_datalist
from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab.finished_runs import RUN_AGAIN, options_of
from propl_monai.evaluation.lab.one_run import Lab, do_run
from propl_monai.evaluation.lab.run_results import RUN
from propl_monai.evaluation.lab.variants import Run, grid, variants

logger = logging.getLogger(__name__)


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
    """As `compare`, from words; "all" stands for every method and control, `leave_out` names external data."""
    if "all" in methods and len(methods) > 1:
        raise ProPLError("--methods", "'all' is every method and control, and stands beside a name", "give it alone")
    names = list(variants()) if list(methods) == ["all"] else list(methods)
    wrong = [seed for seed in seeds if not (seed.isascii() and seed.isdecimal())]
    if wrong or not (names and labelled and seeds):
        fact = f"'{wrong[0]}' is not a seed" if wrong else "names no method, fraction or seed"
        raise ProPLError("compare", fact, "give lists: --methods propl,supervised --labelled 1/16,1/8 --seeds 0,1")
    return compare(lab, grid(names, list(labelled), [int(seed) for seed in seeds], budget_name, leave_out))


def compare(lab: Lab, runs: Sequence[Run]) -> Outcome:
    """Do what is not done of a grid; call it again, or in many places at once, until nothing is left."""
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
    """Refuse to take a run of another preset or recipe for the one that is wanted now."""
    path = lab.folder(run) / RUN
    if not path.exists():
        return
    then, now = options_of(path, read_object(path, RUN_AGAIN)), json.loads(json.dumps(lab.options(run)))
    # Titles are words; a key that older runs lack stands for nothing.
    if other := [key for key in now if key != "title" and (then.get(key) or None) != (now[key] or None)]:
        fact = ", ".join(f"{key} {then.get(key)!r}, now {now[key]!r}" for key in other)
        raise ProPLError(path, f"was finished with {fact}", "give another folder of runs, or delete that run")


def _check_external(datalist: Datalist, run: Run) -> None:
    """Refuse to leave out all that a task could be learnt from: that would test an unknown task, not external data."""
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
                do_run(lab, run, claim.check)
        except ProPLError as problem:
            if claim.won:  # else the run is another worker's now, and may yet be finished
                broken[run.folder] = problem
            raise
        return True
