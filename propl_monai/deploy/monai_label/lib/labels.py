"""The task that a submitted label belongs to, and submitted labels as binary masks for training.

MONAI Label keeps one label file per image and tag. A label belongs to a task if

* its tag is the task's own name, such as `thyroid_nodule`: every value but 0 is the target, so one image can be labelled
  for several overlapping tasks;
* or its tag is `final` and its `label_info`, which viewers send, names the task: the target is the value `idx` if several
  names are listed, otherwise every value but 0;
* or its tag is `final` and it was saved from the entry of that task.

Labels under `original` are predictions that nobody has reviewed; they are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from propl_monai.errors import ProPLError
from propl_monai.images import image_size, read_values, write_mask
from propl_monai.tasks import Task

FINAL = "final"
LOSSY = (".jpg", ".jpeg")
logger = logging.getLogger(__name__)


class Store(Protocol):
    """The part of a MONAI Label datastore that is used here."""

    def list_images(self) -> list[str]: ...
    def get_image_uri(self, image_id: str) -> str: ...
    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]: ...
    def get_label_uri(self, label_id: str, label_tag: str) -> str: ...
    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Submitted:
    """A submitted label.

    Attributes:
        image_id: of the datastore.
        image, label: files.
        value: of the target in a label map; None if every value but 0 is the target.
    """

    image_id: str
    image: Path
    label: Path
    value: int | None


def submitted(store: Store, task: Task) -> list[Submitted]:
    """The labels of one task, at most one per image, in the order of the images' names."""
    found = []
    for image_id in sorted(store.list_images()):
        tags = store.get_labels_by_image_id(image_id)
        for tag in sorted(tags, key=lambda name: name != task.slug):  # the task's own tag takes precedence
            belongs, value = _belongs(tag, store.get_label_info(tags[tag], tag), task)
            if belongs:
                label = Path(store.get_label_uri(tags[tag], tag))
                found.append(Submitted(image_id, Path(store.get_image_uri(image_id)), label, value))
                break
    return found


def unlabelled(store: Store, task: Task) -> list[str]:
    """The ids of the images without a label of this task, sorted."""
    done = {label.image_id for label in submitted(store, task)}
    return sorted(image_id for image_id in store.list_images() if image_id not in done)


def _belongs(tag: str, info: Mapping[str, Any], task: Task) -> tuple[bool, int | None]:
    if tag == task.slug:
        return True, None
    if tag != FINAL:
        return False, None
    listed = info.get("label_info") or []
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and str(entry.get("name", "")).strip().lower() in (task.name, task.slug):
            if len(listed) == 1 or "idx" not in entry:
                return True, None
            return (True, int(entry["idx"])) if str(entry["idx"]).isdecimal() else (False, None)
    return not listed and info.get("model") == task.slug, None


def as_items(labels: Iterable[Submitted], task: Task, folder: Path) -> tuple[list[dict], list[ProPLError]]:
    """Write each label as a mask of 0 and 255 into `folder`.

    Returns:
        MONAI items with `image`, `label`, `task` and `case_id`; and one error per label that was left out.
    """
    items: list[dict] = []
    refused: list[ProPLError] = []
    for number, label in enumerate(labels):
        path = folder / f"{number:05d}.png"
        try:
            write_mask(path, _mask(label))
        except ProPLError as error:
            logger.warning("label left out: %s", error)
            refused.append(error)
        else:
            items.append({"image": str(label.image), "label": str(path), "task": task.name, "case_id": label.image_id})
    return items, refused


def _mask(label: Submitted) -> np.ndarray:
    values = read_values(label.label)
    if values.ndim == 3:
        values = values.max(axis=2)
    if label.label.suffix.lower() in LOSSY:
        raise ProPLError(label.label, "is a JPEG, whose edges are grey instead of black and white", "send a PNG")
    size = image_size(label.image)
    if values.shape != size:
        fact = f"is {values.shape[0]} × {values.shape[1]}, its image {size[0]} × {size[1]}"
        raise ProPLError(label.label, fact, "draw it on the image as it is")
    return values != 0 if label.value is None else values == label.value
