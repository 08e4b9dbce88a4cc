"""The registry of segmentation tasks: the single home of their names, prompts and colours. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from propl_monai.errors import unknown

PROMPT_TEMPLATE = "Segment the {target} in the ultrasound image."  # ProPL, "Implementation Details"


@dataclass(frozen=True)
class Task:
    """One segmentation target.

    Attributes:
        name: the target in words, the spelling used in datalists, prompts, tables and options.
        code: two letters, the paper's abbreviation and the folder name of the plain folder layout.
        organ: where it is found.
        colour: sRGB of its overlays, 0-255; the eight are told apart by colour-blind readers (Okabe and Ito, 2008).
    """

    name: str
    code: str
    organ: str
    colour: tuple[int, int, int]

    @property
    def prompt(self) -> str:
        """The sentence that asks for this target."""
        return PROMPT_TEMPLATE.format(target=self.name)

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return self.name.replace(" ", "_")


TASKS: tuple[Task, ...] = (
    Task("breast cancer", "BC", "breast", (213, 94, 0)),
    Task("fetal head", "FH", "fetus", (86, 180, 233)),
    Task("left atrium", "LA", "heart", (0, 158, 115)),
    Task("left ventricle", "LV", "heart", (240, 228, 66)),
    Task("myocardium", "MD", "heart", (0, 114, 178)),
    Task("ovarian tumor", "OT", "ovary", (204, 121, 167)),
    Task("thyroid gland", "TG", "thyroid", (230, 159, 0)),
    Task("thyroid nodule", "TN", "thyroid", (170, 170, 170)),
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
