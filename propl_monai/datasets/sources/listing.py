"""The entries of a folder in one order on every disk, and the folder of a data set in a download.

Names are compared, never used as patterns: those of BUSI hold brackets, which a pattern takes for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from propl_monai.common.files import PICTURE_SUFFIXES, picture_suffix, stem
from propl_monai.datasets.sources.base import NO_PICTURE, Exclusion
from propl_monai.errors import ProPLError

DEPTH = 2  # a download unpacked into a folder of its own, inside the folder that a user names
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}


def visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden and system files, sorted by name."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        cure = "check the path and its permissions"
        raise ProPLError(folder, f"cannot be listed ({error.strerror})", cure) from error
    return [entry for entry in entries if entry.name[0] != "." and entry.name.lower() not in _SYSTEM_FILES]


def glance(folder: Path) -> str:
    """The first names in a folder, for a message."""
    return ", ".join(entry.name for entry in visible(folder)[:6]) or "it is empty"


def find_folders(folder: Path, fits: Callable[[Path], object], depth: int = DEPTH) -> Iterator[Path]:
    """The folders that fit: the given one, and those up to `depth` levels inside it, in the order of their names."""
    if fits(folder):
        yield folder
    if depth > 0:
        for child in visible(folder):
            if child.is_dir():
                yield from find_folders(child, fits, depth - 1)


def find_one(folder: Path, fits: Callable[[Path], object], contents: str, usual_name: str = "") -> Path:
    """The one folder that fits: the given one, or one up to `DEPTH` levels inside it.

    Args:
        folder: what the user named.
        fits: recognises the folder of the data set.
        contents: what such a folder holds, for messages.
        usual_name: its name in the download; decides between several, of which an inner one is a part of the outer one.
    """
    found = [folder] if usual_name and fits(folder) else list(find_folders(folder, fits))
    homes = [home for home in found if not (usual_name and set(home.parents) & set(found))]
    homes = [home for home in homes if home.name == usual_name] or homes
    if not homes:
        fact = f"holds no folder with {contents} in it (looked in it, and two levels down: {glance(folder)})"
        raise ProPLError(folder, fact, "name the folder of the download, unpacked")
    if len(homes) > 1:
        named = ", ".join(f"'{home.relative_to(folder).as_posix()}'" for home in homes[:3])
        fact = f"holds {len(homes)} folders with {contents} in them, such as {named}"
        raise ProPLError(folder, fact, "name the one that you mean")
    return homes[0]


def find_home(folder: Path, parts: Sequence[str], usual_name: str) -> Path:
    """The folder that holds all of some subfolders; the user may also name one of these, or a folder around it.

    Args:
        folder, usual_name: see `find_one`.
        parts: names of the subfolders.
    """

    def fits(place: Path) -> bool:
        return all((place / part).is_dir() for part in parts)

    place = folder.resolve()
    if place.name in parts and fits(place.parent):
        return place.parent
    return find_one(folder, fits, ", ".join(f"'{part}'" for part in parts), usual_name)


def pictures(folder: Path) -> tuple[dict[str, Path], list[Exclusion]]:
    """The pictures of a folder by name without suffix, in the order of the names, and everything else in it."""
    found: dict[str, Path] = {}
    excluded = []
    for path in visible(folder):
        name = stem(path.name)
        if path.is_dir() or not picture_suffix(path.name):
            excluded.append(left_out(path, f"{NO_PICTURE} (" + ", ".join(PICTURE_SUFFIXES) + ")"))
        elif name in found:
            excluded.append(left_out(path, f"has the same name as {found[name].name}, which is read"))
        else:
            found[name] = path
    return found, excluded


def named_pictures(
    folder: Path, fits: Callable[[str], object], picture_of: Callable[[str], str | None] = lambda name: None
) -> tuple[dict[str, Path], dict[str, list[Path]], list[Exclusion]]:
    """Pictures by name, the masks beside them by the name of their picture, and what is neither.

    Args:
        folder: where they are.
        fits: whether a name is that of a picture.
        picture_of: the name of a mask's picture; None for any other name.
    """
    paths, excluded = pictures(folder)
    images = {name: path for name, path in paths.items() if fits(name)}
    masks: dict[str, list[Path]] = {}
    for name, path in paths.items():
        picture = picture_of(name)
        if picture is not None and picture in images:
            masks.setdefault(picture, []).append(path)
        elif name not in images:
            reason = "is not named as the published pictures are" if picture is None else "is a mask without an image"
            excluded.append(left_out(path, reason))
    return images, masks, excluded


def strays(home: Path, source: str, known: Collection[str]) -> list[Exclusion]:
    """The entries of a data set's folder that are not part of its layout."""
    unknown = (entry.name for entry in visible(home) if entry.name not in known)
    return [Exclusion(name, f"is no part of {source}'s layout") for name in unknown]


def unpacked(folder: Path) -> Path:
    """The folder, or the one of the same name in it: some programs unpack `a.zip`, which holds `a/`, to `a/a/`."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def left_out(path: Path, reason: str) -> Exclusion:
    """An exclusion that names a file by its folder and name, the same on every machine."""
    return Exclusion(f"{path.parent.name}/{path.name}", reason)
