"""The other tasks, while one of them is trained: the pictures that they are rehearsed on, and those they are measured on.

Where the user names a reference folder in the plain layout (that of the first training, say), a task is rehearsed on its
train pictures there and measured with the masks of its validation pictures. Without one, or for a task that it lacks, the
pictures of the study serve; the reference is then a submitted label of that task if there are any, else the mask of the
network as it was before, so that the Dice says how far the task was changed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from propl_monai.data.datalist import as_items
from propl_monai.datasets.sources.registry import read_source
from propl_monai.errors import ProPLError
from propl_monai.images import image_size
from propl_monai.tasks import Task

MOST_MEASURED = 24  # pictures a task
MOST_REHEARSED = 32
logger = logging.getLogger(__name__)


@dataclass
class Pictures:
    """MONAI items by task, and what the measured ones are compared with, in words.

    Attributes:
        rehearsed: `image` and `task`.
        measured: `image`, `task`, `case_id` and, unless the earlier network's mask is meant, `label`.
        reference: of each task.
    """

    rehearsed: list[dict] = field(default_factory=list)
    measured: dict[str, list[dict]] = field(default_factory=dict)
    reference: dict[str, str] = field(default_factory=dict)


def pictures_of_others(
    others: Sequence[Task], study: Sequence[Path], labels: dict[str, list[dict]], reference: Path | None = None
) -> Pictures:
    """Choose the pictures, always the same ones for the same files.

    Args:
        others: the tasks to keep.
        study: pictures at hand; those that cannot be read are left out.
        labels: submitted labels, items by task name; may lack tasks.
        reference: a folder in the plain layout.
    """
    known = _reference_items(reference) if reference else {}
    at_hand = [{"image": str(path)} for path in study if _readable(path)]
    found = Pictures()
    for task in others:
        train, validation = known.get((task.name, "train"), []), known.get((task.name, "validation"), [])
        rehearsed = (train or at_hand)[:MOST_REHEARSED]
        found.rehearsed += [{"image": item["image"], "task": task.name} for item in rehearsed]
        if validation:
            measured, words = validation, "validation masks of the reference folder"
        elif labels.get(task.name):
            measured, words = labels[task.name], "submitted labels"
        else:
            measured, words = at_hand, "masks of the network before"
        found.measured[task.name] = [
            {"case_id": item["image"], **item, "task": task.name} for item in measured[:MOST_MEASURED]
        ]
        found.reference[task.name] = words
    return found


def _reference_items(folder: Path) -> dict[tuple[str, str], list[dict]]:
    """Labelled items by task name and split, in the order of their hashes: as good as a random one, and always the same."""
    datalist = read_source("folder", folder)
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
