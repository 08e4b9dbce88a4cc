"""TN3K: thyroid nodules in 3493 still pictures, with a fixed test set and five folds of the rest.

`trainval-image/0000.jpg` to `2878.jpg` with `trainval-mask/0000.jpg`, `test-image/0000.jpg` to `0613.jpg` with
`test-mask/0000.jpg`, and `tn3k-trainval-fold0.json` to `fold4.json`, each `{"train": [...], "val": [...]}`: places among the
names in numerical order, which are the numbers in the names of the published set.

Masks are JPEG, whose edges are grey: above 127 is nodule. No patient is published, so a picture is its own group;
pictures of one patient may be in two splits, in the publishers' as in any other.

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
from propl_monai.datasets.sources.listing import find_one, strays, visible
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_values, to_grey

NAME = "TN3K"
TASK = "thyroid nodule"
PARTS = ("trainval", "test")
FOLDS = ("0", "1", "2", "3", "4", "none")
WHITE_ABOVE = 127
_NUMBER = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True)
class Pair:
    """A picture and its mask; `number` is their name as a number."""

    number: int
    name: str
    image: Path
    mask: Path

    def record(self, name: str, group: str, task: str, read: Callable[[Path], np.ndarray], split: str | None) -> Record:
        """The pair as a record; `read` reads its mask."""
        return Record(name, group, partial(read_image, self.image), {task: partial(read, self.mask)}, split)


def read_tn3k(folder: Path, *, fold: str = "0") -> Reading:
    """List TN3K.

    Args:
        folder: that holds `trainval-image` and `test-image`, or one above it (two levels at most).
        fold: which of the five official folds divides train from validation; "none" when the fold files are not there.
    """
    choice(NAME, "fold", fold, FOLDS)
    names = [f"{part}-image" for part in PARTS]
    home = find_one(folder, lambda place: any((place / name).is_dir() for name in names), " or ".join(names))
    listed = {part: pair_by_number(home / f"{part}-image", home / f"{part}-mask", f"{part}_") for part in PARTS}
    trainval, _, _ = listed["trainval"]
    fold_file = home / f"tn3k-trainval-fold{fold}.json"
    splits = {} if fold == "none" or not trainval else read_split(fold_file, trainval, "give the option fold=none")
    known = [f"{part}-{kind}" for part in PARTS for kind in ("image", "mask")]
    known += [f"tn3k-trainval-fold{number}.json" for number in FOLDS[:-1]]
    every: list[Record | Exclusion] = [*strays(home, NAME, known)]
    for part, (pairs, excluded, _) in listed.items():
        every += excluded
        for pair in pairs:
            name, split = f"{part}_{pair.name}", "test" if part == "test" else splits.get(pair.number)
            every.append(pair.record(name, name, TASK, read_white, split))
    found = {f"{part} {kind}": counts[kind] for part, (_, _, counts) in listed.items() for kind in counts}
    return Reading.of(every, found)


def pair_by_number(images: Path, masks: Path, prefix: str = "") -> tuple[list[Pair], list[Exclusion], dict[str, int]]:
    """Put pictures and masks of the same number together; a folder that is not there holds none.

    Args:
        images: folder of pictures named by numbers, in any format.
        masks: folder of their masks.
        prefix: of the names in what is left out.

    Returns:
        Pairs in the order of their numbers, what has no partner, and the numbers of pictures and masks.
    """
    pictures, stray = _by_number(images, prefix)
    drawn, stray_masks = _by_number(masks, prefix)
    excluded = [*stray, *stray_masks]
    for own, others, missing in ((pictures, drawn, "mask"), (drawn, pictures, "picture")):
        alone = [own[number] for number in sorted(own.keys() - others)]
        excluded += [Exclusion(prefix + stem(path.name), f"its {missing} is missing") for path in alone]
    both = [(number, pictures[number], drawn[number]) for number in sorted(pictures.keys() & drawn)]
    pairs = [Pair(number, stem(image.name), image, mask) for number, image, mask in both]
    return pairs, excluded, {"pictures": len(pictures), "masks": len(drawn)}


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
    lists: list[Any] = [content.get(key) if isinstance(content, dict) else None for key in ("train", "val")]
    if not all(isinstance(each, list) and all(type(number) is int for number in each) for each in lists):
        raise ProPLError(path, "is not two lists of numbers, train and val", f"download it again, or {cure}")
    train, validation = set(lists[0]), set(lists[1])
    if train & validation:
        raise ProPLError(path, f"has {min(train & validation)} in train and val", f"download it again, or {cure}")
    splits = dict.fromkeys(train, "train") | dict.fromkeys(validation, "validation")
    missing = [pair.name for pair in pairs if pair.number not in splits]
    if missing:
        fact = f"places {len(missing)} of {len(pairs)} pictures neither in train nor in val (such as {missing[0]})"
        raise ProPLError(path, fact, f"use pictures and file of one download, or {cure}")
    return splits


def read_white(path: Path) -> np.ndarray:
    """The white part (above 127) of a black and white picture that may be JPEG, bool `(H, W)`."""
    values = read_values(path)
    grey = to_grey(values) if values.ndim == 3 else values
    if 0 < grey.max() <= WHITE_ABOVE:
        fact = f"holds values up to {grey.max():g}, where a mask of the published set is black and white"
        raise ProPLError(path, fact, "use the masks of the original download")
    return grey > WHITE_ABOVE


SOURCE = Source(
    name=NAME,
    title="Thyroid nodules in still pictures, with a fixed test set",
    tasks=(TASK,),
    group="the picture itself: no patient is published",
    licence="no licence of the data is stated, 'open-access' (the authors' code is MIT; their README read)",
    citation=(
        "Gong H. et al.: Multi-task learning for thyroid nodule segmentation with thyroid region prior. ISBI 2021; "
        "Gong H. et al.: Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules. "
        "Computers in Biology and Medicine 155:106389 (2023)"
    ),
    read=read_tn3k,
    holds={"trainval pictures": 2879, "test pictures": 614, "trainval masks": 2879, "test masks": 614},
)
