"""DDTI: thyroid nodules outlined in the pictures of 390 cases.

One flat folder: `1.xml`, `1_1.jpg`, `1_2.jpg`, `2.xml`, ... A case file holds outlines for the pictures of its case, see
`propl_monai.datasets.sources.ddti_marks`. All outlines of a picture are united.

Known faults of the published files, and what becomes of them:

* Eight outlines are cut off near the 2500th character (cases 54, 127, 165, 166, 176, 197, 203, 205), two of them (197, 205)
  behind their last point: option `truncated`.
* Regions of type `arrow` point at something (case 399): they are not drawn.
* The outline of a picture may be empty. Nobody says that such a picture shows no nodule, so it is unlabelled.
* Seven pictures repeat others pixel by pixel, five of them under another case number and with other outlines. The first is
  kept, and cases that share a picture become one group. Others are recognised when their files are equal byte by byte.
* 399 and 400 have no picture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.ddti_marks import Marks, draw, read_marks
from propl_monai.datasets.sources.listing import find_one, visible
from propl_monai.errors import ProPLError
from propl_monai.images import read_image

NAME = "DDTI"
TASK = "thyroid nodule"
TRUNCATED = ("salvage", "drop")
# Found by comparing pixels of the published pictures; later name to the first one.
REPEATED = {
    "1_2": "1_1",
    "92_4": "92_3",
    "233_2": "150_1",
    "323_1": "150_1",
    "326_1": "150_1",
    "349_1": "150_1",
    "396_1": "353_2",
}
_CASE_FILE = re.compile(r"(\d+)\.xml", re.ASCII | re.IGNORECASE)
_PICTURE = re.compile(r"(\d+)_(\d+)\.(?:jpe?g|png)", re.ASCII | re.IGNORECASE)


Key = tuple[int, int]  # the number of a case, and that of a picture within it


def read_ddti(folder: Path, *, truncated: str = "salvage") -> Reading:
    """List DDTI. Reads the case files, and the bytes of the pictures to find equal ones.

    Args:
        folder: that holds `1.xml` and `1_1.jpg`, or one above it (two levels at most).
        truncated: of an outline that is cut off, "salvage" takes the regions before the cut, and closes the last one with a
            straight line where it has three points. Nodules are nearly convex, so that this marks hardly a pixel that is
            none (at most 0.8 % of the area, three whole outlines cut anywhere), but it may leave out a part of the
            nodule. "drop" leaves the picture out.
    """
    choice(NAME, "truncated", truncated, TRUNCATED)
    cases, pictures, excluded = _list(find_one(folder, _holds_cases, "case files such as 1.xml"))
    marks, unreadable = _read_cases(cases)
    usable = {key: path for key, path in pictures.items() if key[0] in cases and key[0] not in unreadable}
    same = _same_pictures(usable)
    repeats = dict(_repeats(same, usable, marks))
    groups = _groups(same, usable)
    excluded += [*unreadable.values(), *_without_partner(cases, pictures, marks, unreadable)]
    excluded += [Exclusion(_name(key), f"is the same picture as {_name(kept)}") for key, kept in repeats.items()]
    records = []
    for key in usable.keys() - repeats.keys():
        own = marks.get(key, Marks())
        if own.cut and truncated == "drop":
            excluded.append(Exclusion(_name(key), "its outline is cut off in the case file"))
            continue
        excluded += [Exclusion(f"{_name(key)}, region", "is no outline (an arrow or a stroke)")] * own.not_outlines
        mask: Callable[[], np.ndarray] | None = None
        if own.outlines:
            mask = partial(draw, usable[key], tuple(own.outlines))
        records.append(Record(_name(key), groups[key[0]], partial(read_image, usable[key]), {TASK: mask}))
    found = {
        "case files": len(cases),
        "pictures": len(pictures),
        "cut outlines": sum(marks[key].cut for key in usable.keys() & marks.keys()),
        "repeated pictures": len(repeats),
    }
    return Reading.of([*records, *sorted(excluded, key=lambda each: (each.name, each.reason))], found)


def _holds_cases(folder: Path) -> bool:
    return any(_CASE_FILE.fullmatch(each.name) or _PICTURE.fullmatch(each.name) for each in visible(folder))


def _list(home: Path) -> tuple[dict[int, Path], dict[Key, Path], list[Exclusion]]:
    """Case files by number, pictures by their keys, and what is neither."""
    cases: dict[int, Path] = {}
    pictures: dict[Key, Path] = {}
    excluded = []
    for entry in visible(home):
        case, picture = _CASE_FILE.fullmatch(entry.name), _PICTURE.fullmatch(entry.name)
        if case:
            first = cases.setdefault(int(case[1]), entry)
        elif picture:
            first = pictures.setdefault((int(picture[1]), int(picture[2])), entry)
        else:
            excluded.append(Exclusion(entry.name, f"is no file of {NAME}'s layout"))
            continue
        if first is not entry:
            excluded.append(Exclusion(entry.name, f"has the number of {first.name}"))
    return dict(sorted(cases.items())), dict(sorted(pictures.items())), excluded


def _read_cases(cases: Mapping[int, Path]) -> tuple[dict[Key, Marks], dict[int, Exclusion]]:
    """The marks of each picture, and the case files that cannot be read."""
    marks: dict[Key, Marks] = {}
    unreadable = {}
    for case, path in cases.items():
        try:
            marks |= {(case, number): found for number, found in read_marks(path).items()}
        except ProPLError as problem:
            unreadable[case] = Exclusion(path.name, problem.fact, fault=True)
    return marks, unreadable


def _without_partner(
    cases: Mapping[int, Path], pictures: Mapping[Key, Path], marks: Mapping[Key, Marks], unreadable: Container[int]
) -> Iterator[Exclusion]:
    for key in pictures:
        if key[0] not in cases:
            yield Exclusion(_name(key), "its case file is missing")
        elif key[0] in unreadable:
            yield Exclusion(_name(key), "its case file cannot be read")
    for key in marks:
        if key not in pictures:
            yield Exclusion(_name(key), "its picture is missing")
    for case, path in cases.items():
        if case not in unreadable and not any(key[0] == case for key in (*marks, *pictures)):
            yield Exclusion(path.name, "names no picture, and none is there")


def _same_pictures(pictures: Mapping[Key, Path]) -> DisjointSet:
    """Pictures, those that are equal in one subset: by the list above, or by their bytes, whose hashes are in it too."""
    same: DisjointSet = DisjointSet(pictures)
    by_name = {_name(key): key for key in pictures}
    for later, first in REPEATED.items():
        if later in by_name and first in by_name:
            same.merge(by_name[later], by_name[first])
    for key, path in pictures.items():
        content = path.read_bytes()
        if content:  # empty files are no pictures, let alone the same one
            digest = hashlib.sha256(content).hexdigest()
            same.add(digest)
            same.merge(key, digest)
    return same


def _repeats(same: DisjointSet, pictures: Mapping[Key, Path], marks: Mapping[Key, Marks]) -> Iterator[tuple[Key, Key]]:
    """Each picture that is left out, and the one that is kept for it: the first one that has an outline."""
    for subset in same.subsets():
        keys = sorted(key for key in subset if key in pictures)
        kept = min(keys, key=lambda key: (not marks.get(key, Marks()).outlines, key))
        yield from ((key, kept) for key in keys if key != kept)


def _groups(same: DisjointSet, pictures: Mapping[Key, Path]) -> dict[int, str]:
    """Case to group: the smallest number of the cases that share a picture with it, through any chain."""
    cases: DisjointSet = DisjointSet(case for case, _ in pictures)
    for subset in same.subsets():
        first, *others = (key[0] for key in subset if key in pictures)
        for other in others:
            cases.merge(first, other)
    return {case: str(min(cases.subset(case))) for case, _ in pictures}


def _name(key: Key) -> str:
    return f"{key[0]}_{key[1]}"


SOURCE = Source(
    name=NAME,
    title="Thyroid nodules with outlines and TI-RADS, Digital Database of Thyroid Images",
    tasks=(TASK,),
    group="case; cases that share a picture are one",
    licence="'open access' (CIM@LAB); no explicit licence seen",
    citation="Pedraza L. et al.: An open access thyroid ultrasound image database. Proc. SPIE 9287 (2015)",
    read=read_ddti,
    holds={"case files": 390, "pictures": 478, "cut outlines": 8, "repeated pictures": len(REPEATED)},
    exclusions=(
        "Pictures that repeat another one, seven in the published set: their outlines differ.",
        "399_1 and 400_1, whose pictures were never published.",
    ),
)
