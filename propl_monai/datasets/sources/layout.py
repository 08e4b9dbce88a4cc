"""The layout that many data sets share: a home with known subfolders, and pictures in them that are told by their names.

Names are compared, never used as patterns: those of BUSI hold brackets, which a pattern takes for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from propl_monai.common.files import PICTURE_SUFFIXES, picture_suffix, stem
from propl_monai.datasets.sources.base import Exclusion
from propl_monai.datasets.sources.listing import DEPTH, find_folders, visible
from propl_monai.errors import ProPLError


def find_home(folder: Path, parts: Sequence[str], usual_name: str = "") -> Path:
    """The folder of a data set: the one that holds all of some subfolders.

    It may be the folder given, its parent (when one of the subfolders was given), or one up to two levels inside it.

    Args:
        folder: what the user named.
        parts: names of the subfolders that it must hold.
        usual_name: what its name is in the download; decides between several that hold all parts.
    """
    parent = folder.resolve().parent
    if folder.resolve().name in parts and _holds(parent, parts):
        return parent
    found = [folder]
    if not _holds(folder, parts):
        found = list(find_folders(folder, lambda inner: _holds(inner, parts)))
    homes = [home for home in found if not set(home.parents) & set(found)]  # one inside another is a part of it
    homes = [home for home in homes if home.name == usual_name] or homes
    if not homes:
        fact = f"holds no folder with {_listed(parts)} in it, also not {DEPTH} levels down"
        raise ProPLError(folder, fact, "name the folder of the download, unpacked")
    if len(homes) > 1:
        named = _listed([home.relative_to(folder).as_posix() for home in homes[:3]])
        fact = f"holds {len(homes)} folders with {_listed(parts)} in them, such as {named}"
        raise ProPLError(folder, fact, "name the one that you mean")
    return homes[0]


def pictures(folder: Path) -> tuple[dict[str, Path], list[Exclusion]]:
    """The pictures of a folder by name without suffix, in the order of the names, and whatever else lies there."""
    found: dict[str, Path] = {}
    excluded = []
    for path in visible(folder):
        name = stem(path.name)
        if path.is_dir() or not picture_suffix(path.name):
            excluded.append(left_out(path, "is not a picture (" + ", ".join(PICTURE_SUFFIXES) + ")"))
        elif name in found:
            excluded.append(left_out(path, f"has the same name as {found[name].name}, which is read"))
        else:
            found[name] = path
    return found, excluded


def named_pictures(folder: Path, fits: Callable[[str], object]) -> tuple[dict[str, Path], list[Exclusion]]:
    """As `pictures`, of those alone whose name fits."""
    paths, excluded = pictures(folder)
    found = {name: path for name, path in paths.items() if fits(name)}
    reason = "is not named as the published pictures are"
    return found, excluded + [left_out(path, reason) for name, path in paths.items() if name not in found]


def unpacked(folder: Path) -> Path:
    """The folder, or the one of the same name in it: some programs unpack `a.zip`, which holds `a/`, to `a/a/`."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def left_out(path: Path, reason: str) -> Exclusion:
    """An exclusion that names a file by its folder and name, the same on every machine."""
    return Exclusion(f"{path.parent.name}/{path.name}", reason)


def _holds(folder: Path, parts: Sequence[str]) -> bool:
    return all((folder / part).is_dir() for part in parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
