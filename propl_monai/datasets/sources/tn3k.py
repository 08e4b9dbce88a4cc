"""TN3K: thyroid nodules in 3493 still pictures, with a fixed test set and five folds of the rest.

`trainval-image/0000.jpg` to `2878.jpg` with `trainval-mask/0000.jpg`, `test-image/0000.jpg` to `0613.jpg` with
`test-mask/0000.jpg`, and `tn3k-trainval-fold0.json` to `fold4.json`, each `{"train": [...], "val": [...]}`: places among the
names in numerical order, which are the numbers in the names of the published set.

Masks are JPEG, whose edges are grey: above 127 is nodule. No patient is told, so that a picture is its own group; pictures
of one patient may stand in two splits, in the publishers' as in any other.

TG3K comes from the same authors in the same form, and its reader uses the public functions of this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.files import picture_suffix, stem
from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.listing import find_one, visible
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_values, to_grey

NAME = "TN3K"
TASK = "thyroid nodule"
PARTS = ("trainval", "test")
FOLDS = ("0", "1", "2", "3", "4", "none")
WHITE_ABOVE = 127
_NUMBER = re.compile(r"\d+", re.ASCII)
_FOLD_FILE = re.compile(r"tn3k-trainval-fold[0-4]\.json")


@dataclass(frozen=True)
class Pair:
    """A picture and its mask; `number` is their name as a number."""

    number: int
    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Pairs:
    """What two folders hold: pairs in the order of their numbers, what has no partner, and how many files of each."""

    pairs: tuple[Pair, ...]
    excluded: tuple[Exclusion, ...]
    pictures: int
    masks: int


def read_tn3k(folder: Path, *, fold: str = "0") -> Reading:
    """List TN3K.

    Args:
        folder: that holds `trainval-image` and `test-image`, or one above it (two levels at most).
        fold: which of the five official folds tells train from validation; "none" when the fold files are not there.
    """
    choice(NAME, "fold", fold, FOLDS)
    home = find_home(folder, NAME, [f"{part}-image" for part in PARTS])
    listed = {part: pair_by_number(home / f"{part}-image", home / f"{part}-mask", f"{part}_") for part in PARTS}
    records = [_record(pair, "test", "test") for pair in listed["test"].pairs]
    trainval = listed["trainval"].pairs
    fold_file = home / f"tn3k-trainval-fold{fold}.json"
    splits = {} if fold == "none" or not trainval else read_split(fold_file, trainval, "give the option fold=none")
    records += [_record(pair, "trainval", splits.get(pair.number)) for pair in trainval]
    stray = [
        Exclusion(entry.name, f"is no part of {NAME}'s layout") for entry in visible(home) if not _is_known(entry.name)
    ]
    excluded = (*stray, *(each for part in PARTS for each in listed[part].excluded))
    found = {f"{part} pictures": listed[part].pictures for part in PARTS}
    found |= {f"{part} masks": listed[part].masks for part in PARTS}
    return Reading(tuple(sorted(records, key=lambda record: record.name)), excluded, found)


def find_home(folder: Path, source: str, names: Sequence[str]) -> Path:
    """The one folder that holds at least one of the named folders: this one, or one in it (two levels at most)."""
    shown = " or ".join(names)
    cure = f"name the folder of {source} that holds {shown}, unpacked"
    return find_one(
        folder, lambda entry: any((entry / name).is_dir() for name in names), f"folder {shown}", shown, cure
    )


def pair_by_number(images: Path, masks: Path, prefix: str = "") -> Pairs:
    """Put pictures and masks of the same number together; a folder that is not there holds none.

    Args:
        images: folder of pictures named by numbers, in any format.
        masks: folder of their masks.
        prefix: of the names in what is left out.
    """
    pictures, stray = _by_number(images, prefix)
    drawn, stray_masks = _by_number(masks, prefix)
    excluded = [*stray, *stray_masks]
    excluded += [
        Exclusion(prefix + stem(pictures[number].name), "its mask is missing")
        for number in sorted(pictures.keys() - drawn)
    ]
    excluded += [
        Exclusion(prefix + stem(drawn[number].name), "its picture is missing")
        for number in sorted(drawn.keys() - pictures)
    ]
    pairs = (
        Pair(number, stem(pictures[number].name), pictures[number], drawn[number])
        for number in sorted(pictures.keys() & drawn)
    )
    return Pairs(tuple(pairs), tuple(excluded), len(pictures), len(drawn))


def _by_number(folder: Path, prefix: str) -> tuple[dict[int, Path], list[Exclusion]]:
    numbered: dict[int, Path] = {}
    excluded = []
    for entry in visible(folder) if folder.is_dir() else ():
        if not picture_suffix(entry.name) or not _NUMBER.fullmatch(stem(entry.name)):
            excluded.append(Exclusion(f"{folder.name}/{entry.name}", "is no picture that is named by a number"))
        elif numbered.setdefault(int(stem(entry.name)), entry) is not entry:
            excluded.append(Exclusion(prefix + entry.name, "has the number of another file of its folder"))
    return numbered, excluded


def read_split(path: Path, pairs: Sequence[Pair], cure: str) -> dict[int, str]:
    """Number of a picture to `train` or `validation`, from the publishers' file of `{"train": [...], "val": [...]}`.

    The places in the file are taken as the numbers in the names: the published names are 0000, 0001 and so on without a
    gap, where both are the same, and in a copy that lacks a picture only the numbers stay right.

    Args:
        path: the file.
        pairs: what it must place.
        cure: what to do without the file.
    """
    if not path.is_file():
        raise ProPLError(path, "is missing", f"download it from the authors' repository, or {cure}")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ProPLError(path, f"is not JSON ({error})", f"download it again, or {cure}") from error
    train, validation = (_numbers(content, key) for key in ("train", "val"))
    if train is None or validation is None:
        raise ProPLError(path, "is not two lists of numbers, train and val", f"download it again, or {cure}")
    if train & validation:
        raise ProPLError(path, f"has {min(train & validation)} in train and val", f"download it again, or {cure}")
    splits = dict.fromkeys(train, "train") | dict.fromkeys(validation, "validation")
    missing = [pair.name for pair in pairs if pair.number not in splits]
    if missing:
        fact = f"places {len(missing)} of {len(pairs)} pictures neither in train nor in val (such as {missing[0]})"
        raise ProPLError(path, fact, f"use pictures and file of one download, or {cure}")
    return splits


def _numbers(content: Any, key: str) -> set[int] | None:
    numbers = content.get(key) if isinstance(content, dict) else None
    return set(numbers) if isinstance(numbers, list) and all(type(each) is int for each in numbers) else None


def read_white(path: Path) -> np.ndarray:
    """What is white (above 127) in a black and white picture that may be JPEG, bool `(H, W)`."""
    values = read_values(path)
    grey = to_grey(values) if values.ndim == 3 else values
    if 0 < grey.max() <= WHITE_ABOVE:
        fact = f"holds values up to {grey.max():g}, where a mask of the published set is black and white"
        raise ProPLError(path, fact, "use the masks of the original download")
    return grey > WHITE_ABOVE


def _is_known(name: str) -> bool:
    return name in {f"{part}-{kind}" for part in PARTS for kind in ("image", "mask")} or bool(
        _FOLD_FILE.fullmatch(name)
    )


def _record(pair: Pair, part: str, split: str | None) -> Record:
    name = f"{part}_{pair.name}"
    masks: dict[str, Callable[[], np.ndarray] | None] = {TASK: partial(read_white, pair.mask)}
    return Record(name, name, partial(read_image, pair.image), masks, split)


SOURCE = Source(
    name=NAME,
    title="Thyroid nodules in still pictures, with a fixed test set",
    tasks=(TASK,),
    group="the picture itself: no patient is told",
    licence="no licence of the data is stated, 'open-access' (the authors' code is MIT; their README read)",
    citation=(
        "Gong H. et al.: Multi-task learning for thyroid nodule segmentation with thyroid region prior. ISBI 2021; "
        "Gong H. et al.: Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules. "
        "Computers in Biology and Medicine 155:106389 (2023)"
    ),
    read=read_tn3k,
    holds={"trainval pictures": 2879, "test pictures": 614, "trainval masks": 2879, "test masks": 614},
)
