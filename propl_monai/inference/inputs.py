"""Which files a prediction reads, and what the results of each are called."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from propl_monai.common.files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, true_type
from propl_monai.errors import ProPLError

_FRAME_NAME = re.compile(r"(.+)_frame_\d+")  # what frames of a cine are called, see `predict_paths`


def find_inputs(paths: Sequence[str | Path], output_dir: str | Path, cines: bool = False) -> list[tuple[Path, str]]:
    """The pictures among files and in folders, however deep.

    In folders, hidden files, files of other types and everything inside `output_dir` are passed over; a DICOM file need not
    have a suffix. A file that is named itself is taken whatever it is called.

    Args:
        paths: files and folders.
        output_dir: where the results go.
        cines: take AVI and MP4 too.

    Returns:
        Sorted (file, name of its results): its path below the deepest folder that holds all of `paths`, without suffix;
        the suffix becomes a part of the name where two files differ in nothing else.
    """
    suffixes = PICTURE_SUFFIXES + (VIDEO_SUFFIXES if cines else ())
    given = [Path(os.path.abspath(path)) for path in paths]
    inside = Path(output_dir).resolve()
    found: dict[Path, Path] = {}
    for path, shown in zip(given, paths, strict=True):
        if not path.exists():
            raise ProPLError(shown, "does not exist", "name an image or a folder of images")
        files = (file for file in _walk(path) if _is_picture(file, suffixes)) if path.is_dir() else [path]
        for file in files:
            if inside not in file.resolve().parents:
                found.setdefault(file.resolve(), Path(shown) / file.relative_to(path))
    if not found:
        cure = f"supported: PNG, JPG, BMP, TIFF, WebP, NIfTI, MetaImage, DICOM{', AVI, MP4' if cines else ''}"
        raise ProPLError(_listed(paths), "holds no picture" + _but_results(inside, given), cure)
    files = sorted(found.values())
    folder = _common_folder(given)
    places = [Path(os.path.abspath(file)).relative_to(folder) for file in files]
    return list(zip(files, _names(places, suffixes), strict=True))


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        cure = "check its permissions"
        raise ProPLError(error.filename, f"cannot be listed ({error.strerror})", cure) from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _is_picture(file: Path, suffixes: Sequence[str]) -> bool:
    """By suffix; a file without one, or with a number such as 1.2.840.1 for a name, by its bytes: DICOM is so named."""
    if _suffix(file.name, suffixes):
        return file.is_file()
    if file.suffix and not file.suffix[1:].isdigit():
        return False
    try:
        return file.is_file() and true_type(file) == "a DICOM file"
    except OSError:  # nothing says that it is a picture
        return False


def _suffix(name: str, suffixes: Sequence[str]) -> str:
    return next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")


def _listed(paths: Sequence[str | Path]) -> str:
    return ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "") or "the inputs"


def _but_results(inside: Path, given: Sequence[Path]) -> str:
    hidden = any(inside == path.resolve() or inside in path.resolve().parents for path in given)
    return " outside the folder for the results" if hidden else ""


def _common_folder(given: Sequence[Path]) -> Path:
    folders = [path if path.is_dir() else path.parent for path in given]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError as error:  # drives of Windows
        raise ProPLError(_listed(given), "lie on several drives", "predict one drive after the other") from error


def _names(places: Sequence[Path], suffixes: Sequence[str]) -> list[str]:
    """Places without suffix; no file may overwrite another's results, not even where a disk takes A for a."""
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
