"""The registry of segmentation tasks: the single home of their names, prompts and colours. Imports no torch.

The package has eight. Weights to which a user has added others (`propl add-task`) describe these in their header; whoever
opens such weights makes them known to the process (`add`), so that they are found by name like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

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

NAME_PATTERN = r"[a-z][a-z0-9]*(?:[ -][a-z0-9]+)*"  # of an added task: part of file names, and of a sentence in English
LONGEST_NAME = 40
_TEXT_PATTERN = r"[^\x00-\x1f]{1,80}"
_NAME_CURE = f"name the target in 2 to {LONGEST_NAME} letters, digits, spaces and hyphens, such as 'carotid lumen'"
# sRGB of added tasks, in their order: those of Tol's "muted" scheme that are far from the eight above.
_MORE_COLOURS = ((51, 34, 136), (136, 34, 85), (153, 153, 51), (204, 102, 119), (68, 170, 153))
_added: dict[str, Task] = {}  # by name


def known() -> tuple[Task, ...]:
    """The tasks of the package, and behind them those that weights have brought into this process."""
    return (*TASKS, *_added.values())


def known_names() -> tuple[str, ...]:
    """The names of `known`, in this order."""
    return tuple(task.name for task in known())


def is_added(name: str) -> bool:
    """Whether a known task is not one of the package's."""
    return name in _added


def add(task: Task) -> Task:
    """Make a task known to this process; one of the package's own of that name counts in its place."""
    if task.name in NAMES:
        return find(task.name)
    _added[task.name] = task
    return task


def new_task(name: str, organ: str | None = None, where: object = "task") -> Task:
    """A task that is not known yet, with a code and a colour that no other has; `add` makes it known.

    Args:
        name: as a user typed it; capitals are lowered, "tumour" becomes "tumor", as in what is asked for later.
        organ: where it is found; tasks of one organ may have their targets in one picture (`share_images`). None for one
            of its own, named after it.
        where: who asks, for the error.
    """
    plain = re.sub(r"\s+", " ", name).strip().lower().replace("tumour", "tumor")
    if not re.fullmatch(NAME_PATTERN, plain) or not 2 <= len(plain) <= LONGEST_NAME:
        raise ProPLError(where, f"{name!r} is no name of a target" if plain else "the name is empty", _NAME_CURE)
    for task in known():
        if plain in _words_for(task):
            called = f"'{plain}'" if plain == task.name else f"'{plain}', by which '{task.name}' is asked for,"
            raise ProPLError(where, f"{called} is known already", "train that task, or choose another name")
    own = (organ or plain).strip()
    if not re.fullmatch(_TEXT_PATTERN, own):
        raise ProPLError("organ", f"{organ!r} is not a line of text", "name it in a word, such as neck")
    taken = {task.colour for task in known()}
    free = [colour for colour in _MORE_COLOURS if colour not in taken]
    return Task(plain, _free_code(plain), own, free[0] if free else _MORE_COLOURS[len(_added) % len(_MORE_COLOURS)])


def _free_code(name: str) -> str:
    """Two letters of a name that are no code yet: its initials, if they are free."""
    letters = re.sub(r"[^a-z0-9]", "", name)
    initials = "".join(word[0] for word in re.split("[ -]", name))
    pairs = [initials[:2], *(letters[0] + other for other in letters[1:])]
    codes = [pair.upper() for pair in pairs if len(pair) == 2] + [f"{letters[0].upper()}{n}" for n in range(1, 1000)]
    return next(code for code in codes if all(code.lower() not in _words_for(task) for task in known()))


def _words_for(task: Task) -> set[str]:
    """Every word by which a task is understood, in lower case."""
    return {task.name, task.code.lower(), task.slug, *task.synonyms}


def facts(task: Task) -> dict[str, Any]:
    """A task as JSON values, for the header of weights."""
    return asdict(task)


def from_facts(content: Any, where: object) -> Task:
    """A task from what `facts` gave, and a file held since."""
    try:
        made = Task(**{**content, "colour": tuple(content["colour"]), "synonyms": tuple(content["synonyms"])})
        texts = [(made.name, NAME_PATTERN), (made.code, "[A-Z][A-Z0-9]{1,3}"), (made.organ, _TEXT_PATTERN)]
        texts += [(word, NAME_PATTERN) for word in made.synonyms]
        sound = len(made.name) <= LONGEST_NAME and all(re.fullmatch(pattern, text) for text, pattern in texts)
        sound &= len(made.colour) == 3 and all(type(level) is int and 0 <= level <= 255 for level in made.colour)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise ProPLError(
            where, f"describes a task that is none: {content!r}"[:300], "download it again, or train again"
        )
    return made


def find(text: str, where: object = "task") -> Task:
    """The task of a name, code or slug, in any case."""
    wanted = str(text).strip().lower()
    for task in known():
        if wanted in (task.name, task.code.lower(), task.slug):
            return task
    raise unknown(where, "task", text, known_names())


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
    for task in known():
        if words & _words_for(task):
            return task
    core = min(words, key=len)
    near = [
        (1 - SequenceMatcher(None, core, name).ratio(), task.name, name)
        for task in known()
        for name in (task.name, *task.synonyms)
    ]
    distance, target, name = min(near)
    nearest = f"'{target}'" if name == target else f"'{target}' (as '{name}')"
    cure = f"did you mean {nearest}? distance {distance:.2f} by letters"
    raise ProPLError(
        where, f"unknown task '{text}'", cure if distance < FAR else f"{cure}; known: {', '.join(known_names())}"
    )


def _pattern(wording: str) -> str:
    return re.escape(wording.lower().rstrip(".?")).replace(re.escape("{target}"), "(.+?)") + "[.?]?"
