"""What lies in a folder, in one order on every disk, without hidden and system files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from propl_monai.errors import ProPLError

DEPTH = 2  # a download unpacked into a folder of its own, inside the folder that a user names
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}


def visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden and system files, sorted by name."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ProPLError(
            folder, f"cannot be listed ({error.strerror})", "check the path and its permissions"
        ) from error
    return [entry for entry in entries if entry.name[0] != "." and entry.name.lower() not in _SYSTEM_FILES]


def glance(folder: Path) -> str:
    """The first names of what lies in a folder, for a message."""
    return ", ".join(entry.name for entry in visible(folder)[:6]) or "it is empty"


def find_folders(folder: Path, fits: Callable[[Path], bool], depth: int = DEPTH) -> Iterator[Path]:
    """The folders that fit: the given one, and those up to `depth` levels inside it, in the order of their names."""
    if fits(folder):
        yield folder
    if depth > 0:
        for child in visible(folder):
            if child.is_dir():
                yield from find_folders(child, fits, depth - 1)


def find_one(folder: Path, fits: Callable[[Path], bool], lacks: str, several: str, cure: str) -> Path:
    """The one folder that fits, as `find_folders` looks for it.

    Args:
        folder: what the user named.
        fits: tells the folder of the data set.
        lacks: what is missing where nothing fits, after "holds no".
        several: what is there more than once where several fit, after "holds".
        cure: where nothing fits.
    """
    homes = list(find_folders(folder, fits))
    if not homes:
        raise ProPLError(folder, f"holds no {lacks} (looked in it, and two levels down: {glance(folder)})", cure)
    if len(homes) > 1:
        fact = f"holds {several} in several folders: " + ", ".join(str(home) for home in homes)
        raise ProPLError(folder, fact, "name one of them")
    return homes[0]
