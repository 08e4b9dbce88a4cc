"""The registry of segmentation tasks: the single home of their names, prompts and colours. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

from propl_monai.errors import ProPLError, unknown

PROMPT_TEMPLATE = "Segment the {target} in the ultrasound image."  # ProPL, "Implementation Details"
# Ways to ask for a target: a network may learn them all (`prompts=several`), and a user may type any of them.
WORDINGS = (
    PROMPT_TEMPLATE,
    "{target}",
    "the {target}",
    "Find the {target}.",
    "Where is the {target}?",
    "Please segment the {target}.",
    "Show me the {target}.",
    "Mark the {target} in this ultrasound scan.",
    "Delineate the {target} in the B-mode image.",
    "Draw the border of the {target}.",
    "Contour of the {target} in this frame.",
    "Ultrasound image, mask of the {target}.",
)


FAR = 0.5  # distance of words from which on all names are told, not the nearest alone


@dataclass(frozen=True)
class Task:
    """One segmentation target.

    Attributes:
        name: the target in words, the spelling used in datalists, prompts, tables and options.
        code: two letters, the paper's abbreviation and the folder name of the plain folder layout.
        organ: where it is found.
        colour: sRGB of its overlays, 0-255; the eight are told apart by colour-blind readers (Okabe and Ito, 2008).
        synonyms: other words for it that a user may type; data keep to the name.
    """

    name: str
    code: str
    organ: str
    colour: tuple[int, int, int]
    synonyms: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The sentence that asks for this target."""
        return PROMPT_TEMPLATE.format(target=self.name)

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return self.name.replace(" ", "_")

    @property
    def sentences(self) -> list[str]:
        """Every wording with the name, the paper's first, then every wording with a synonym."""
        others = (
            [self.synonyms[number % len(self.synonyms)] for number in range(len(WORDINGS))] if self.synonyms else []
        )
        pairs = [(wording, self.name) for wording in WORDINGS] + list(zip(WORDINGS, others, strict=False))
        return [wording.format(target=words) for wording, words in pairs]


TASKS: tuple[Task, ...] = (
    Task("breast cancer", "BC", "breast", (213, 94, 0), ("breast lesion", "breast tumor", "breast mass")),
    Task("fetal head", "FH", "fetus", (86, 180, 233), ("head of the fetus", "fetal skull", "foetal head")),
    Task("left atrium", "LA", "heart", (0, 158, 115), ("left atrial cavity", "cavity of the left atrium")),
    Task("left ventricle", "LV", "heart", (240, 228, 66), ("left ventricular cavity", "cavity of the left ventricle")),
    Task("myocardium", "MD", "heart", (0, 114, 178), ("heart muscle", "left ventricular wall")),
    Task("ovarian tumor", "OT", "ovary", (204, 121, 167), ("ovarian mass", "ovarian lesion", "tumor of the ovary")),
    Task("thyroid gland", "TG", "thyroid", (230, 159, 0), ("thyroid", "thyroid lobes", "gland of the thyroid")),
    Task(
        "thyroid nodule", "TN", "thyroid", (170, 170, 170), ("thyroid lesion", "thyroid mass", "nodule of the thyroid")
    ),
)

NAMES: tuple[str, ...] = tuple(task.name for task in TASKS)


def find(text: str, where: object = "task") -> Task:
    """The task of a name, code or slug, in any case."""
    wanted = str(text).strip().lower()
    for task in TASKS:
        if wanted in (task.name, task.code.lower(), task.slug):
            return task
    raise unknown(where, "task", text, NAMES)


def find_all(texts: str | Iterable[str], where: object = "tasks") -> list[Task]:
    """The tasks of one name or several; a single one may come without a list, as from a command line."""
    return [find(text, where) for text in ([texts] if isinstance(texts, str) else texts)]


def share_images(name: str, other: str) -> bool:
    """Whether two tasks may have their targets in one picture: they differ, and belong to one organ.

    A mask of the one then says nothing about the other, as for the left atrium and the left ventricle of a heart.
    """
    one, two = find(name), find(other)
    return one != two and one.organ == two.organ


def understand(text: str, where: object = "task") -> Task:
    """The task that a user asks for: as `find`, or by a synonym, or by one of `WORDINGS`; no other words are guessed at.

    "tumour" is read as "tumor". Words that are not known are refused with the nearest target and its distance: 1 minus
    the share of letters in common (`difflib`), 0 for equal words.
    """
    asked = re.sub(r"\s+", " ", str(text)).strip().lower().replace("tumour", "tumor")
    words = {asked, *(found[1] for wording in WORDINGS if (found := re.fullmatch(_pattern(wording), asked)))}
    for task in TASKS:
        if words & {task.name, task.code.lower(), task.slug, *task.synonyms}:
            return task
    core = min(words, key=len)
    near = [
        (1 - SequenceMatcher(None, core, name).ratio(), task.name, name)
        for task in TASKS
        for name in (task.name, *task.synonyms)
    ]
    distance, target, name = min(near)
    nearest = f"'{target}'" if name == target else f"'{target}' (as '{name}')"
    cure = f"did you mean {nearest}? distance {distance:.2f} by letters"
    raise ProPLError(where, f"unknown task '{text}'", cure if distance < FAR else f"{cure}; known: {', '.join(NAMES)}")


def _pattern(wording: str) -> str:
    return re.escape(wording.lower().rstrip(".?")).replace(re.escape("{target}"), "(.+?)") + "[.?]?"
