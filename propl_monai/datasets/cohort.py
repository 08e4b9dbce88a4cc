"""The cases of a run: labelled, unlabelled and validation for training; one split for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from propl_monai.common.options import switch
from propl_monai.common.ranks import is_writer
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist, as_items
from propl_monai.data.splits import labelled_images
from propl_monai.datasets.sources.registry import read_source
from propl_monai.datasets.verification.record import is_recorded, record_path
from propl_monai.datasets.verification.verify import require_verified, verify_now
from propl_monai.errors import ProPLError

DATALIST = "datalist.json"
logger = logging.getLogger(__name__)


def no_folder(dataset_dir: str) -> ProPLError:
    """The error of a missing folder of data."""
    cure = "give --dataset_dir, or set PROPL_DATA; `propl phantoms FOLDER` makes a folder to try"
    return ProPLError(dataset_dir, "is not a folder", cure)


def open_datalist(
    dataset_dir: str,
    datalist_file: str | None,
    output_dir: str,
    tasks: Sequence[str],
    allow_unverified: bool = False,
) -> Datalist:
    """The datalist of a run, whole and verified.

    Args:
        dataset_dir: folder of the images.
        datalist_file: a datalist of that folder that `propl verify` has found sound; None builds one from the layout
            `<TASK>/<SOURCE>/{images,masks}`, writes it to `output_dir`, and verifies it there on the first run.
        output_dir: folder of the run.
        tasks: names of tasks; those that the data lack are left out.
        allow_unverified: take the data without verification, or in spite of its errors.
    """
    if not Path(dataset_dir).is_dir():
        raise no_folder(dataset_dir)
    unverified = switch("allow_unverified", allow_unverified)
    if datalist_file:
        datalist = Datalist.read(datalist_file, dataset_dir)
        datalist.select(tasks=tasks)
        require_verified(datalist, datalist_file, unverified)
        return datalist
    datalist = read_source("folder", dataset_dir)
    datalist.select(tasks=tasks)
    if is_writer():  # the others go on, and wait for it where they first exchange something
        built = Path(output_dir) / DATALIST
        datalist.write(built)
        if unverified:
            logger.warning("unverified data are used: %s", dataset_dir)
        else:
            verify_now(datalist, built)
    return datalist


def datalist_of_training(dataset_dir: Path | str, datalist_file: Path | str | None, sha256: str | None) -> Datalist:
    """The datalist that weights were trained with, so that their splits are known; another one is refused.

    Args:
        dataset_dir: folder of the images.
        datalist_file: of that folder; None reads the plain layout.
        sha256: of the datalist, from the header of the weights.
    """
    datalist = Datalist.read(datalist_file, dataset_dir) if datalist_file else read_source("folder", dataset_dir)
    if datalist.sha256 != sha256:
        fact = f"has sha256 {datalist.sha256}, the weights were trained with {sha256}"
        cure = "give the datalist of that training, else cases that it has seen would count as new"
        raise ProPLError(datalist_file or dataset_dir, fact, cure)
    return datalist


def datalist_inputs(datalist: Datalist, datalist_file: str | None, output_dir: str) -> list[str]:
    """The files that `open_datalist` took a datalist from: its own, and the record of its verification if it has one."""
    file = Path(datalist_file or Path(output_dir) / DATALIST)
    return [str(file), *([str(record_path(file))] if is_recorded(datalist, file) else [])]


class TrainingCohort:
    """The cases that a training may see. Test cases never enter.

    Args:
        dataset_dir, datalist_file, output_dir, tasks: see `open_datalist`.
        labelled_fraction: share of the train images whose masks are used, such as "1/8".
        use_unlabelled: false trains on the labelled images alone.
        allow_unverified: see `open_datalist`.
        leave_out: external data, see `external_cases`; they are neither trained nor validated on.

    Attributes:
        labelled, unlabelled, validation: MONAI items, see `datalist.as_items`; unlabelled ones have no "label".
        counts: how many of each.
        inputs: the datalist file, and the record of its verification.
        sha256: of the datalist.
    """

    def __init__(
        self,
        dataset_dir: str,
        datalist_file: str | None,
        output_dir: str,
        tasks: Sequence[str],
        labelled_fraction: str | float = "1/8",
        use_unlabelled: bool = True,
        allow_unverified: bool = False,
        leave_out: str | Sequence[str] | None = None,
    ) -> None:
        datalist = open_datalist(dataset_dir, datalist_file, output_dir, tasks, allow_unverified)
        external = {case.case_id for case in external_cases(datalist, leave_out)} if leave_out else set()
        self.inputs = datalist_inputs(datalist, datalist_file, output_dir)
        self.sha256 = datalist.sha256
        # Over all tasks, so that an image is labelled for one task where it is for another, whatever tasks are trained.
        chosen = labelled_images(datalist.cases, labelled_fraction)
        datalist = datalist.select(tasks=tasks)
        seen = [case for case in datalist.cases if case.case_id not in external]
        train = [case for case in seen if case.split == "train"]
        if not any(case.case_id in chosen for case in train):
            cure = "add labelled images, or check the splits"
            raise ProPLError(datalist.name, "holds no train case with a mask", cure)
        rest = [replace(case, mask=None) for case in train if case.case_id not in chosen]
        self.labelled = as_items([case for case in train if case.case_id in chosen], datalist.root)
        self.unlabelled = as_items(rest, datalist.root) if switch("use_unlabelled", use_unlabelled) else []
        held_out = [case for case in seen if case.split == "validation" and case.mask]
        self.validation = as_items(held_out, datalist.root)
        self.counts = {name: len(getattr(self, name)) for name in ("labelled", "unlabelled", "validation")}
        logger.info("%s: %s", datalist.name, "  ".join(f"{name} {count}" for name, count in self.counts.items()))


def external_cases(datalist: Datalist, patterns: str | Sequence[str]) -> list[Case]:
    """The cases of sources or groups that stand for another hospital, machine or time.

    Args:
        datalist: where they are.
        patterns: "SOURCE", or "SOURCE/GROUP" where the group may hold the wildcards * and ?; one or several.
    """
    found: dict[str, Case] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        source, _, group = pattern.partition("/")
        fitting = [case for case in datalist.cases if case.source == source and fnmatchcase(case.group, group or "*")]
        if not fitting:
            known = ", ".join(sorted({case.source for case in datalist.cases}))
            cure = f"give SOURCE or SOURCE/GROUP; sources: {known}"
            raise ProPLError(f"external data '{pattern}'", "fits no case", cure)
        found |= {case.case_id: case for case in fitting}
    return list(found.values())


class GivenItems:
    """Stands in for a cohort where a run is given its labelled items, as by MONAI Label; nothing else is known.

    Args:
        reason: why there is no cohort; raised when its labelled or validation items are used after all.
    """

    def __init__(self, reason: ProPLError) -> None:
        self.reason = reason
        self.unlabelled: list[dict] = []
        self.inputs: list[str] = []
        self.counts: dict[str, int] = {}
        self.sha256: str | None = None

    @property
    def labelled(self) -> list[dict]:
        raise self.reason

    validation = labelled


def training_cohort(dataset_dir: str, *arguments: Any, **options: Any) -> TrainingCohort | GivenItems:
    """The cohort of a training; where `dataset_dir` is no folder, a substitute that serves as long as its items are not used.

    MONAI Label overrides the items of the train config and has no folder of data; in any other run the reason is raised
    by the first look at the items.

    Args: those of `TrainingCohort`.
    """
    if not Path(dataset_dir).is_dir():
        return GivenItems(no_folder(dataset_dir))
    return TrainingCohort(dataset_dir, *arguments, **options)


def evaluation_items(
    datalist: Datalist,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    external: str | Sequence[str] | None = None,
) -> list[dict]:
    """The cases of one split, and of some tasks or all, that have a mask, as MONAI items.

    Args:
        datalist: where they are.
        split: of the datalist; does not count for external data, which training has not seen at all.
        tasks: names of tasks; None for all.
        external: evaluate on these alone, see `external_cases`; they must have been left out of the training.
    """
    chosen = datalist.select(tasks=tasks) if external else datalist.select(split, tasks)
    wanted = {case.case_id for case in external_cases(datalist, external)} if external else None
    cases = [case for case in chosen.cases if case.mask and (wanted is None or case.case_id in wanted)]
    if not cases:
        raise ProPLError(datalist.name, f"no {split} case has a mask", "choose another split, or add masks")
    return as_items(cases, datalist.root)
