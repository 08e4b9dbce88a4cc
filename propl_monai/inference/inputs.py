"""Which files a prediction reads, and what the results of each are called."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from propl_monai.common.files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, belongs_to_header, true_type
from propl_monai.common.originals import no_originals
from propl_monai.common.run_record import holds_predictions
from propl_monai.errors import ProPLError
from propl_monai.inference.doubts import Doubts
from propl_monai.inference.formats.masks import Masks, frame_name
from propl_monai.tasks import find

_FRAME_NAME = re.compile(r"(.+)_frame_\d+")  # results of a frame of a cine, see `predict_paths`
logger = logging.getLogger(__name__)


def find_inputs(
    paths: Sequence[str | Path], output_dir: str | Path, cines: bool = False, verbs: Sequence[str] = ()
) -> list[tuple[Path, str]]:
    """The pictures among files and in folders, however deep.

    In folders, files of other types, folders with results of earlier predictions and folders of masks beside `images` are
    passed over with a warning, hidden files and everything inside `output_dir` silently; a DICOM file needs no suffix. A
    file that is named itself is taken whatever its name.

    Args:
        paths: files and folders.
        output_dir: where the results go.
        cines: take AVI, MP4 and MOV too.
        verbs: commands beside `propl predict` whose results are passed over.

    Returns:
        Sorted (file, name of its results): its path below the deepest folder that holds all of `paths`, without suffix;
        the suffix becomes part of the name where two files differ in nothing else.
    """
    suffixes = PICTURE_SUFFIXES + (VIDEO_SUFFIXES if cines else ())
    given = [Path(os.path.abspath(path)) for path in paths]
    listed = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "") or "the inputs"
    inside = Path(output_dir).resolve()
    within = os.path.join(inside, "")
    found: dict[str, Path] = {}
    passed_over: Counter[str] = Counter()
    for path, shown in zip(given, paths, strict=True):
        if not path.exists():
            raise ProPLError(shown, "does not exist", "name an image or a folder of images")
        start = Path(shown)
        for file, place in _walk(path, inside, verbs) if path.is_dir() else [(path, os.path.realpath(path))]:
            if place.startswith(within):
                continue
            if file == path or _is_picture(file, suffixes):
                found.setdefault(place, start / file.relative_to(path))
            elif not belongs_to_header(file):
                passed_over[file.suffix or "without suffix"] += 1
    if passed_over:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(passed_over.items()))
        logger.warning("%s: files of other types are passed over: %s", listed, counts)
    if not found:
        hidden = any(inside == path.resolve() or inside in path.resolve().parents for path in given)
        fact = "holds no picture" + " outside the folder for the results" * hidden
        cure = f"supported: PNG, JPG, BMP, TIFF, WebP, NIfTI, MetaImage, DICOM{', AVI, MP4, MOV' if cines else ''}"
        raise ProPLError(listed, fact, cure)
    try:
        folder = os.path.commonpath([path if path.is_dir() else path.parent for path in given])
    except ValueError as error:  # drives of Windows
        raise ProPLError(listed, "lie on several drives", "predict one drive after the other") from error
    files = sorted(found.values())
    places = [Path(os.path.abspath(file)).relative_to(folder) for file in files]
    return list(zip(files, _names(places, suffixes), strict=True))


def _walk(folder: Path, results: Path, verbs: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """All files in a folder but hidden ones, results and masks, and where each truly is, links followed.

    Results in `results` need no warning. A folder that cannot be listed stands among the files, so that it is refused by
    name and the rest is done.
    """
    closed: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=closed.append):
        if reason := no_originals(Path(place), Path(place) == folder, verbs):
            folders.clear()
            if Path(place).resolve() != results:
                logger.warning("%s: %s", place, reason.removeprefix("is "))
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = os.path.realpath(place)  # once for all of its files: it looks at each folder on the way
        for name in names:
            if not name.startswith("."):
                file = Path(place, name)
                # unlike `resolve`, `realpath` takes a link that leads to itself
                yield file, os.path.realpath(file) if os.path.islink(file) else os.path.join(real, name)
    yield from ((Path(error.filename), os.path.realpath(error.filename)) for error in closed)


def _is_picture(file: Path, suffixes: Sequence[str]) -> bool:
    """By suffix; by its first bytes where it has none, or a number as in 1.2.840.1: DICOM files have such names.

    What has the suffix of a picture and is none, such as a link that leads nowhere, is refused by name later.
    """
    if _suffix(file.name, suffixes):
        return True
    try:
        if file.is_dir():  # that cannot be listed
            return True
    except OSError:  # a path longer than the system allows
        return True
    if file.suffix and not file.suffix[1:].isdigit():
        return False
    try:
        return file.is_file() and true_type(file) == "a DICOM file"
    except OSError:  # nothing says that it is a picture
        return False


def _suffix(name: str, suffixes: Sequence[str]) -> str:
    return next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")


def _names(places: Sequence[Path], suffixes: Sequence[str]) -> list[str]:
    """Places without suffix; no file may overwrite another's results, not even on disks that ignore case."""
    names = [place.as_posix()[: len(place.as_posix()) - len(_suffix(place.name, suffixes))] for place in places]
    counts = Counter(name.casefold() for name in names)
    taken = set(counts)
    for index, place in enumerate(places):
        like_a_frame = _FRAME_NAME.fullmatch(names[index])
        if counts[names[index].casefold()] > 1 or (like_a_frame and like_a_frame[1].casefold() in counts):
            name = place.with_name(place.name.replace(".", "_")).as_posix()
            while name.casefold() in taken:
                name += "_"
            names[index] = name
            taken.add(name.casefold())
    return names


def refuse_foreign_files(folder: Path, names: Iterable[str], tasks: Sequence[str], whole: Iterable[str] = ()) -> None:
    """Refuse an output folder with files that are called as results will be, and that no earlier prediction has left there.

    Args:
        folder: for the results; one with results of ours passes, whatever it holds.
        names: of the results of all inputs.
        tasks: names.
        whole: names of files for the whole folder.
    """
    if not folder.is_dir() or holds_predictions(folder) or not any(folder.iterdir()):
        return
    kinds = "|".join(["overlay", "areas", *(find(task).slug for task in tasks)])
    result = re.compile(rf"(.+?)(_frame_\d+)?_({kinds})(_probability|_uncertainty)?\.[^/]+", re.DOTALL)
    wanted, files = {*names}, {*whole}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        match = result.fullmatch(place)
        if (place in files or (match and match[1] in wanted)) and path.is_file():
            fact = "is no result of an earlier prediction, and would be overwritten"
            raise ProPLError(path, fact, "choose another output folder, or overwrite it (--overwrite)")


@dataclass
class InputFile:
    """An input file, and what was written for its frames so far.

    Attributes:
        path, sha256: of the file.
        name: of its results, relative to the output folder, without suffix.
        count: number of frames.
        masks: kept for formats that hold all frames in one file; None where PNG is the only one.
        seconds_per_frame: None when unknown.
        doubts: what their scores say.
        kept: number of masks that `--strict` did not withhold.
        there: results of an earlier run for fewer tasks or outputs, which stay as they are: somebody may have corrected them.
    """

    path: Path
    name: str
    sha256: str
    count: int = 1
    masks: Masks | None = None
    seconds_per_frame: float | None = None
    written: int = 0
    outputs: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    doubts: Doubts = field(default_factory=Doubts)
    kept: int = 0
    there: frozenset[Path] = frozenset()

    def frame_name(self, number: int) -> str:
        """The name of the results of a frame, from 1."""
        return frame_name(self.name, self.count, number)
