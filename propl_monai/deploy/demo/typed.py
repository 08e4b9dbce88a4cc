"""What the user of the page typed: a task in words, a pixel size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from propl_monai import tasks
from propl_monai.common.spacing import Spacing, require_spacing
from propl_monai.errors import ProPLError, unknown
from propl_monai.tasks import Task, find

_PIXEL_SIZE = "pixel size"
_ALIKE = 0.6  # of a name and words of a sentence, from 0 to 1


def task_of(text: str, known: Sequence[str]) -> Task:
    """The task of a name, code or slug, or the only one that a sentence names.

    Args:
        text: such as "TN", or "Segment the thyroid nodule in the ultrasound image."
        known: names of the tasks that the weights know.
    """
    words = re.findall(r"\w+", text.lower().replace("_", " "))
    sentence = f" {' '.join(words)} "
    named = [task for task in tasks.known() if f" {task.name} " in sentence]
    if len(named) > 1:
        listed = " and ".join(f"'{task.name}'" for task in named)
        raise ProPLError("target", f"{listed} are named", "ask for one after the other; the page shows them together")
    if not words:
        raise ProPLError("target", "nothing was typed", "choose or type one of: " + ", ".join(known))
    if not named and len(words) > 2:
        raise _with_known(unknown("target", "task", _nearest(words, known), known), known)
    try:
        task = named[0] if named else find(text, "target")
    except ProPLError as error:
        raise _with_known(error, known) from error
    if task.name not in known:
        raise ProPLError("target", f"these weights do not know '{task.name}'", "they know " + ", ".join(known))
    return task


def _nearest(words: Sequence[str], known: Sequence[str]) -> str:
    """The one or two words of a sentence that are most like a name; all of it where none are."""
    parts = [" ".join(words[start : start + count]) for count in (2, 1) for start in range(len(words) - count + 1)]
    likeness = {part: max(SequenceMatcher(None, part, name).ratio() for name in known) for part in parts}
    best = max(parts, key=lambda part: likeness[part])
    return best if likeness[best] >= _ALIKE else " ".join(words)


def _with_known(error: ProPLError, known: Sequence[str]) -> ProPLError:
    """The error of an unknown name, whose cure lists the known ones beside the nearest."""
    listed = "known: " + ", ".join(known)
    return ProPLError(error.where, error.fact, error.cure if listed in error.cure else f"{error.cure} {listed}")


def spacing_of(text: str) -> Spacing | None:
    """Height and width of a pixel in mm: one number for both, or two; None where nothing was typed.

    "0.1", "0,1", "0.1 0.12" and "0.1 × 0.12" are understood.
    """
    parts = re.split(r"\s*[×x*;]\s*|\s+", text.strip().lower().removesuffix("mm").strip())
    if parts == [""]:
        return None
    cure = "type one number in mm, such as 0.1, or height and width, such as 0.1 × 0.12"
    try:
        numbers = [float(part.replace(",", ".")) for part in parts]
    except ValueError as error:
        raise ProPLError(_PIXEL_SIZE, f"'{text}' is no number", cure) from error
    if len(numbers) > 2:
        raise ProPLError(_PIXEL_SIZE, f"'{text}' holds {len(numbers)} numbers", cure)
    return require_spacing((numbers[0], numbers[-1]), _PIXEL_SIZE)
