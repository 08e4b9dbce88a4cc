"""The plain layout `<root>/<TASK>/<SOURCE>/{images,masks}/NAME.ext`, with an optional `manifest.csv` beside them.

`TASK` is a code, name or slug of `propl_monai.tasks`; other folders of the root are left alone. Image and mask belong
together when their names are equal without the suffix. An image without a mask is unlabelled. `manifest.csv` has a column
`name` and may have `group` (patient, examination or video) and `pixel_size_mm` (of square pixels); the rest is ignored. An
image without a row or with an empty group is a group of its own.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np

from propl_monai import tasks
from propl_monai.common.files import PICTURE_SUFFIXES, belongs_to_header, file_sha256, picture_suffix, stem
from propl_monai.common.spacing import Spacing
from propl_monai.data.cases import Case, summarise
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import assign_splits
from propl_monai.datasets.sources.base import Reading, Record, unreadable
from propl_monai.datasets.sources.listing import visible
from propl_monai.datasets.sources.table import positive_number, read_table, two_spellings
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_image, read_mask, turn
from propl_monai.images.opening import open_file

MANIFEST = "manifest.csv"
MASKS = ("upright", "stored")  # how masks were drawn: as the picture is seen, or on its pixels before EXIF turns them
HASH_THREADS = 4
_ALIKE = 0.8  # of the letters of two names
_LAYOUT = "<TASK>/<SOURCE>/images and masks, TASK one of " + ", ".join(task.code for task in tasks.TASKS)


@dataclass(frozen=True)
class _Row:
    group: str = ""
    spacing_mm: Spacing | None = None


@dataclass(frozen=True)
class _Pair:
    task: tasks.Task
    source: str
    name: str
    image: Path
    mask: Path | None
    row: _Row | None


def read_folder(root: str | Path) -> Datalist:
    """Read a folder in the plain layout, and assign the splits.

    Returns:
        A datalist named after the folder, with hashes and splits; its description says what was noticed.
    """
    root = Path(root)
    pairs = _pairs(root)
    cases = _to_cases(root, pairs)
    placed = assign_splits(cases)
    united = sum(before.group != after.group for before, after in zip(cases, placed, strict=True))
    return Datalist(root, placed, root.resolve().name or "root", _describe(pairs, united))


def read_turned(root: Path) -> dict[str, Reading]:
    """Every source of the folder as records to copy upright, whose masks were drawn on the pixels as stored.

    Without the orientation of EXIF such a mask fits its picture; so it is turned as its picture is. Pictures of one name
    and content under several tasks become one record.
    """
    records: dict[tuple[str, str], Record] = {}
    digests: dict[tuple[str, str], str] = {}
    for pair in _pairs(root):
        key, digest = (pair.source, pair.name), file_sha256(pair.image)
        if digests.setdefault(key, digest) != digest:  # another picture under another task
            key = (pair.source, f"{pair.task.code}_{pair.name}")
        row = pair.row or _Row()
        empty = Record(key[1], row.group or key[1], partial(_read_spaced, pair.image, row.spacing_mm), {})
        known = records.get(key, empty)
        mask = partial(_read_turned_mask, pair.mask, pair.image) if pair.mask else None
        records[key] = replace(known, masks={**known.masks, pair.task.name: mask})
    sources = sorted({source for source, _ in records})
    return {name: Reading.of([each for key, each in records.items() if key[0] == name], {}) for name in sources}


def _read_spaced(path: Path, spacing_mm: Spacing | None) -> Picture:
    picture = read_image(path)
    return replace(picture, spacing_mm=spacing_mm or picture.spacing_mm)


def _read_turned_mask(mask: Path, image: Path) -> np.ndarray:
    return turn(read_mask(mask), open_file(image).orientation)


def _pairs(root: Path) -> list[_Pair]:
    """Images, masks and rows of all sources; all faults are reported together."""
    try:
        return _checked_pairs(root)
    except OSError as error:
        raise unreadable(error, root) from error


def _checked_pairs(root: Path) -> list[_Pair]:
    pairs: list[_Pair] = []
    problems: list[ProPLError] = []
    for task, folder in _source_folders(root):
        try:
            pairs += _read_source(task, folder)
        except ProPLError as problem:
            problems.append(problem)
    for source in sorted({pair.source for pair in pairs}):
        groups = sorted({pair.row.group for pair in pairs if pair.source == source and pair.row and pair.row.group})
        cure = "write one of them everywhere, or, if they are two patients, rename one"
        for first, other in two_spellings(groups):
            fact = f"names groups that differ only in spelling: '{first}' and '{other}'"
            problems.append(ProPLError(f"{root}, {MANIFEST} of {source}", fact, cure))
    if problems:
        raise summarise(root, problems)
    return pairs


def _source_folders(root: Path) -> list[tuple[tasks.Task, Path]]:
    """Every `<TASK>/<SOURCE>` under the root, in the order of tasks and names."""
    if not root.is_dir():
        raise ProPLError(root, "is not a folder", f"name the folder that holds {_LAYOUT}")
    known = {word.lower(): task for task in tasks.known() for word in (task.code, task.name, task.slug)}
    found = []
    for folder in visible(root):
        task = known.get(folder.name.lower())
        for place in (folder, folder / MANIFEST) if task and folder.is_dir() else (folder,):
            if place.name.casefold() == MANIFEST and place.exists():
                raise ProPLError(place, "is not read here", "move it into the folder of its source, beside 'images'")
        if folder.is_dir() and task is None and len(folder.name) > 4:  # codes are too short to be misspelled
            near = get_close_matches(folder.name.lower(), known, 1, _ALIKE)
            if near:
                fact = f"is no task, but nearly '{near[0]}', so its pictures would be left out"
                raise ProPLError(folder, fact, f"rename it to '{near[0]}', or move it elsewhere")
        if task is None or not folder.is_dir():
            continue
        inner = [child for child in visible(folder) if child.is_dir()]
        if not inner:
            raise ProPLError(folder, "holds no folder of a source", f"use the layout {_LAYOUT}")
        found += [(task, child) for child in inner]
    if not found:
        raise ProPLError(root, "holds no folder of a task", f"use the layout {_LAYOUT}")
    return sorted(found, key=lambda pair: (pair[0].code, pair[1].name))


def _read_source(task: tasks.Task, folder: Path) -> list[_Pair]:
    _require_layout(folder)
    images = _pictures(folder / "images")
    masks = _pictures(folder / "masks") if (folder / "masks").is_dir() else {}
    rows = _read_manifest(folder / MANIFEST)
    cure = "add the image, or remove the mask"
    problems = [ProPLError(masks[name], "is a mask without an image", cure) for name in masks if name not in images]
    facts = [f"names '{name}', which is not in images" for name in rows if name not in images]
    problems += [ProPLError(folder / MANIFEST, fact, "add the image, or remove the row") for fact in facts]
    if problems:
        raise summarise(folder, problems)
    return [_Pair(task, folder.name, name, path, masks.get(name), rows.get(name)) for name, path in images.items()]


def _require_layout(folder: Path) -> None:
    """Refuse entries that were meant to be masks or the manifest: masks and groups would silently be left out."""
    for entry in visible(folder):
        name = entry.name.casefold()
        if entry.is_dir() and name not in ("images", "masks") and not (folder / "masks").is_dir():
            if re.fullmatch(
                r"(gt|seg|mask|label|annotation|ground.?truth|segmentation)s?|.*masks?.*|.*labels?.*", name
            ):
                raise ProPLError(entry, "looks like a folder of masks, which is named 'masks'", "rename it")
        if not entry.is_dir() and "manifest" in name and entry.name != MANIFEST:
            raise ProPLError(entry, f"is not read; a manifest is named '{MANIFEST}'", "save it as CSV under that name")


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name without suffix."""
    if not folder.is_dir():
        raise ProPLError(folder, "is not there", f"use the layout {_LAYOUT}")
    found: dict[str, Path] = {}
    problems = []
    for path in visible(folder):
        if belongs_to_header(path):
            continue
        name = stem(path.name)
        if re.search("[\ud800-\udfff]", folder.parent.name + path.name):
            problems.append(ProPLError(path, "has a name that is not UTF-8", "rename it"))
        elif not picture_suffix(path.name):
            fact = "is not a picture of a known type"
            problems.append(ProPLError(path, fact, "keep only " + ", ".join(PICTURE_SUFFIXES) + " files here"))
        elif name in found:
            problems.append(ProPLError(path, f"has the same name as {found[name].name}", "rename or remove one"))
        found.setdefault(name, path)
    if problems:
        raise summarise(folder, problems)
    if not found:
        raise ProPLError(folder, "holds no picture", "add " + ", ".join(PICTURE_SUFFIXES) + " files")
    return found


def _read_manifest(path: Path) -> dict[str, _Row]:
    """The rows of a manifest by name without suffix; nothing when there is no manifest."""
    rows: dict[str, _Row] = {}
    if not path.exists():
        return rows
    cure = "save it as UTF-8 text with a column 'name'; 'group' and 'pixel_size_mm' are optional"
    for where, row in read_table(
        path, ("name",), cure, ("group", "pixel_size_mm"), unread=("hc_mm", "width", "height")
    ):
        name, text = stem(row["name"]), row["pixel_size_mm"]
        if not name:
            raise ProPLError(where, "has no name", "give the name of the image, or remove the row")
        if name in rows:
            raise ProPLError(where, f"names '{name}' a second time", "keep one row for each image")
        size = positive_number(text)
        if text and size is None:
            raise ProPLError(where, f"pixel_size_mm '{text}' is not a positive number", "give mm, or leave it empty")
        rows[name] = _Row(row["group"], (size, size) if size else None)
    return rows


def _to_cases(root: Path, pairs: list[_Pair]) -> list[Case]:
    paths = [pair.image for pair in pairs] + [pair.mask for pair in pairs if pair.mask is not None]
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        hashes = dict(zip(paths, pool.map(file_sha256, paths), strict=True))
    return [
        Case(
            case_id=f"{pair.task.code}/{pair.source}/{pair.name}",
            image=pair.image.relative_to(root).as_posix(),
            mask=pair.mask.relative_to(root).as_posix() if pair.mask else None,
            task=pair.task.name,
            source=pair.source,
            group=(pair.row and pair.row.group) or pair.name,
            split="train",
            image_sha256=hashes[pair.image],
            mask_sha256=hashes[pair.mask] if pair.mask else None,
            pixel_spacing_mm=pair.row.spacing_mm if pair.row else None,
        )
        for pair in pairs
    ]


def _describe(pairs: list[_Pair], united: int) -> str:
    counts = [
        (sum(pair.mask is None for pair in pairs), "without a mask"),
        (sum(pair.row is None for pair in pairs), f"in no row of a {MANIFEST}, each a group of its own"),
        (united, "regrouped, as their group shares a picture with another one"),
    ]
    return ". ".join([f"{len(pairs)} cases", *(f"{count} {words}" for count, words in counts if count)]) + "."
