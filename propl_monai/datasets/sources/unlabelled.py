"""A folder of pictures and cines without masks, in folders of any depth: more to learn from, never measured on.

The option `task` says what they show: a picture is trained on under these tasks.
Names of files and folders become names of cases and groups; rename those that identify a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from propl_monai import tasks
from propl_monai.common.files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, belongs_to_header
from propl_monai.common.originals import no_originals
from propl_monai.common.run_record import made_by
from propl_monai.datasets.sources.base import NO_PICTURE, Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.cines import parse_every, read_frame
from propl_monai.datasets.sources.listing import visible
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_frames, read_image
from propl_monai.images.picture import NoPicture, holds_two_values

NAME = "unlabelled"
GROUPS = ("folder", "file")
SUFFIXES = PICTURE_SUFFIXES + VIDEO_SUFFIXES
_NO_PICTURES = ("is plain text", "is of no known picture type")  # a file without a suffix may be anything
STILLS = (".png", ".jpg", ".jpeg", ".bmp")  # need not be opened to know that they hold one frame


def read_unlabelled(folder: Path, *, task: str = "", every: str = "1", group: str = "folder") -> Reading:
    """List the pictures and the frames of cines in a folder and in the folders inside it.

    Args:
        folder: any.
        task: name or code of the task that the pictures belong to; several separated by commas. Required.
        every: keep frames 1, 1 + every, ... of a cine.
        group: "folder": all that lies in one inner folder is one group, the safe choice, as such folders are most often
            named by patient; what lies in `folder` itself is a group for each file. "file": each file is a group.

    Returns:
        Records named after their place, `a/b.png` as `a__b`, frames of cines as `a__b_frame001`; a name that two files would
        share keeps its suffix. All are for training: nothing can be measured on a picture without a mask.
    """
    if not task.strip():
        cure = "give task=... with one of " + ", ".join(tasks.NAMES) + ", or several separated by commas"
        raise ProPLError(f"source {NAME}, option task", "is not given, and pictures alone do not show it", cure)
    named = tasks.find_all(task.split(","), f"source {NAME}, option task")
    task_names = tuple(dict.fromkeys(each.name for each in named))
    step = parse_every(NAME, every)
    choice(NAME, "group", group, GROUPS)
    if reason := _no_inputs(folder):
        raise ProPLError(folder, reason, "name the folder of the original pictures")
    known, excluded = _sort_files(folder)
    records: dict[str, Record] = {}
    files = 0
    for name, path in _named(folder, known):
        place = path.relative_to(folder)
        of_group = place.parent.as_posix() if group == "folder" and place.parent.name else name
        try:
            for record in _read_file(name, path, of_group, task_names, step):
                if records.setdefault(record.name.casefold(), record) is not record:
                    excluded.append(Exclusion(place.as_posix(), f"another file is named {record.name} too"))
            files += 1
        except ProPLError as problem:
            by_chance = isinstance(problem, NoPicture) or (not _suffix(path) and problem.fact in _NO_PICTURES)
            excluded.append(Exclusion(place.as_posix(), problem.fact, fault=not by_chance))
    return Reading.of([*records.values(), *excluded], {"files": files})


def _sort_files(folder: Path) -> tuple[list[Path], list[Exclusion]]:
    """The pictures and cines, by suffix, and everything else; without a suffix the bytes decide later."""
    known, excluded = [], []
    for path in _walk(folder):
        reason = ""
        if path.is_symlink() and path.is_dir():
            reason = "is a link to a folder, which is not followed"
        elif path.is_dir():
            reason = _no_inputs(path)
        elif _suffix(path) or not path.suffix or path.suffix[1:].isdigit():  # a DICOM may be named 1.2.840.1
            known.append(path)
        elif not belongs_to_header(path):
            reason = f"{NO_PICTURE} or cine of a known type"
        if reason:
            excluded.append(Exclusion(path.relative_to(folder).as_posix(), reason))
    return known, excluded


def _walk(folder: Path) -> Iterator[Path]:
    """The files, links to folders (a link upwards would never end), and folders that hold no inputs."""
    for entry in visible(folder):
        if entry.is_symlink() or not entry.is_dir() or _no_inputs(entry):
            yield entry
        else:
            yield from _walk(entry)


def _no_inputs(folder: Path) -> str:
    """Why the pictures in a folder are not to be learned from: they are masks, which look like any picture."""
    if made_by(folder / "run.json", "prepare"):
        return "is passed over, as it holds prepared pictures and masks"
    return no_originals(folder)


def _suffix(path: Path) -> str:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def _named(folder: Path, paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Each file with a name made of its place, and its suffix where two files differ in nothing else."""
    full = {path: "__".join(path.relative_to(folder).parts) for path in paths}
    short = {path: name[: len(name) - len(_suffix(path))] for path, name in full.items()}
    uses = Counter(name.casefold() for name in short.values())
    for path, name in short.items():
        yield (name if uses[name.casefold()] == 1 else full[path]), path


def _read_file(name: str, path: Path, group: str, task_names: tuple[str, ...], step: int) -> Iterator[Record]:
    masks = dict.fromkeys(task_names)
    count = 1 if _suffix(path) in STILLS else read_frames(path).count
    if count == 1:
        yield Record(name, group, partial(_read_still, path), masks, "train")
        return
    for number in range(1, count + 1, step):
        yield Record(f"{name}_frame{number:03d}", group, partial(read_frame, path, number), masks, "train")


def _read_still(path: Path) -> Picture:
    """A picture, but no mask that lies among the pictures, as in BUSI: a network would learn to outline it."""
    picture = read_image(path)
    if holds_two_values(picture.pixels):
        raise ProPLError(path, "holds two values only, as a mask does", "take it away, if it is one")
    return picture


SOURCE = Source(
    name=NAME,
    title="Your own pictures and cines without masks, in folders of any depth",
    tasks=(),
    group="inner folder, or file (option group)",
    licence="yours",
    citation="",
    exclusions=("Files of no known type, and cines whose header cannot be read.",),
    read=read_unlabelled,
)
