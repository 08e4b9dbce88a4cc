"""The pictures on which the other tasks are rehearsed and measured while one task is trained.

If the user gives reference pictures (those of the first training, for example), a task is rehearsed on their train pictures
and measured with their validation masks. Otherwise, and for tasks without pictures there, the
pictures of the study are used. Their reference is a submitted label of the task if there is any, otherwise the mask of
the network before training, so that the Dice shows how far the predictions moved.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from propl_monai.data.datalist import Datalist, as_items
from propl_monai.errors import ProPLError
from propl_monai.images import image_size
from propl_monai.tasks import Task

MOST_MEASURED = 24  # pictures per task
MOST_REHEARSED = 32
VALIDATION_MASKS = "validation masks of the reference folder"
logger = logging.getLogger(__name__)


@dataclass
class Pictures:
    """MONAI items, and a description of the reference of each task.

    Attributes:
        rehearsed: with `image` and `task`.
        measured: by task, with `image`, `task`, `case_id` and, unless the reference is the earlier network, `label`.
        reference: by task.
    """

    rehearsed: list[dict] = field(default_factory=list)
    measured: dict[str, list[dict]] = field(default_factory=dict)
    reference: dict[str, str] = field(default_factory=dict)


def pictures_of_others(
    others: Sequence[Task],
    study: Sequence[Path],
    labels: dict[str, list[dict]],
    reference: Datalist | None = None,
    most_measured: int = MOST_MEASURED,
) -> Pictures:
    """Choose the pictures, the same ones for the same files.

    Args:
        others: the tasks to keep.
        study: the pictures of the study; those that cannot be read are left out.
        labels: submitted labels, items by task name, not of every task.
        reference: pictures with masks, in splits.
        most_measured: pictures that a task is measured on.
    """
    known = _reference_items(reference) if reference else {}
    in_study = [{"image": str(path)} for path in study if _readable(path)]
    found = Pictures()
    for task in others:
        train, validation = known.get((task.name, "train"), []), known.get((task.name, "validation"), [])
        rehearsed = (train or in_study)[:MOST_REHEARSED]
        found.rehearsed += [{"image": item["image"], "task": task.name} for item in rehearsed]
        if validation:
            measured, words = validation, VALIDATION_MASKS
        elif labels.get(task.name):
            measured, words = labels[task.name], "submitted labels"
        else:
            measured, words = in_study, "masks of the network before"
        found.measured[task.name] = [
            {"case_id": item["image"], **item, "task": task.name} for item in measured[:most_measured]
        ]
        found.reference[task.name] = words
    return found


def _reference_items(datalist: Datalist) -> dict[tuple[str, str], list[dict]]:
    """Labelled items by task name and split, in the order of their hashes: as good as random, and reproducible."""
    found: dict[tuple[str, str], list[dict]] = {}
    for case in sorted(datalist.cases, key=lambda case: case.image_sha256):
        if case.mask:
            found.setdefault((case.task, case.split), []).extend(as_items([case], datalist.root))
    return found


def _readable(path: Path) -> bool:
    try:
        image_size(path)
    except ProPLError as error:
        logger.warning("picture left out: %s", error)
        return False
    return True
