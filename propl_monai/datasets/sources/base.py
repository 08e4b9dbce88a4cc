"""The form of a source: the facts of a data set, and the result of its reader.

One source is one file here, one test and one maker of fake data. A reader knows names, folders and groups of the original
layout; it lists what is there and says how each picture and mask is read, but decodes nothing until a record is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from propl_monai.errors import ProPLError, unknown
from propl_monai.images import Picture

NO_PICTURE = "is not a picture"  # begins the reason of files of other types, which are counted by suffix


@dataclass(frozen=True)
class Record:
    """One picture of a source, and what is drawn on it.

    Attributes:
        name: of the picture, unique in its source and independent of the machine; it becomes the file name and the last
            part of the case id.
        group: patient, examination or video; the picture's own name where none is published.
        image: reads the picture, upright; may raise `ProPLError`.
        masks: for each task that the picture belongs to, the function that reads its mask (bool `(H, W)`, upright; may raise
            `ProPLError`), or None where none was drawn.
        split: `train`, `validation` or `test` where the publishers say so.
    """

    name: str
    group: str
    image: Callable[[], Picture]
    masks: Mapping[str, Callable[[], np.ndarray] | None]
    split: str | None = None


@dataclass(frozen=True)
class Exclusion:
    """Something that was found and left out.

    Attributes:
        name: of the picture or file.
        reason: in words, for the report.
        fault: whether it should have been read but could not be; then the exit code is not 0.
    """

    name: str
    reason: str
    fault: bool = False


@dataclass(frozen=True)
class Reading:
    """The pictures of a folder, and what was left out.

    Attributes:
        records: in the order of their names.
        excluded: what was left out, and why.
        found: counts under the words of `Source.holds`.
    """

    records: tuple[Record, ...]
    excluded: tuple[Exclusion, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, listed: Iterable[Record | Exclusion], found: Mapping[str, int]) -> Reading:
        """Sort what a reader listed; exclusions stay in their order."""
        listed = list(listed)
        records = sorted((each for each in listed if isinstance(each, Record)), key=lambda record: record.name)
        return cls(tuple(records), tuple(each for each in listed if isinstance(each, Exclusion)), found)


@dataclass(frozen=True)
class Source:
    """The facts of a data set, and its reader.

    Attributes:
        name: as in datalists and on the command line, e.g. `BUSI`.
        title: one line.
        tasks: names of the tasks that it has masks for; empty when the user says (`folder`, `unlabelled`).
        group: one line on what a group is.
        licence: as far as known, with how it is known.
        citation: the paper to cite.
        holds: what the published set holds, words to counts, e.g. `{"benign images": 437}`; empty when it has no fixed size.
        exclusions: what is left out on purpose and why, one sentence each.
        read: `read(folder, *, option=default, ...) -> Reading`; options are strings.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    group: str
    licence: str
    citation: str
    read: Callable[..., Reading]
    holds: Mapping[str, int] = field(default_factory=dict)
    exclusions: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, str]:
        """The reader's options and their defaults."""
        parameters = inspect.signature(self.read).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}

    def open(self, folder: Path, options: Mapping[str, str] | None = None) -> Reading:
        """Read a folder."""
        for option in options or {}:
            if option not in self.options:
                raise unknown(f"source {self.name}", "option", option, self.options)
        try:
            if not folder.is_dir():
                raise ProPLError(folder, "is not a folder", f"name the folder that holds {self.name}")
            reading = self.read(folder, **(options or {}))
        except OSError as error:
            raise unreadable(error, folder) from error
        if not reading.records:
            reasons = "; ".join(sorted({each.reason for each in reading.excluded}))
            fact = f"holds no picture of {self.name}" + (f" that is not left out ({reasons})" if reasons else "")
            raise ProPLError(folder, fact, "check that it is the folder of the original download, unpacked")
        return reading


def unreadable(error: OSError, folder: Path) -> ProPLError:
    """The error for a file or folder that cannot be read while a folder is listed."""
    place = error.filename or folder
    return ProPLError(place, f"cannot be read ({error.strerror})", "check its permissions and the disk")


def choice(source: str, option: str, value: str, allowed: Iterable[str]) -> str:
    """The value of an option that has a closed list of them."""
    allowed = list(allowed)
    if value not in allowed:
        raise unknown(f"source {source}, option {option}", "value", value, allowed)
    return value
