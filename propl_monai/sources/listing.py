"""What lies in a folder, in one order on every disk, without hidden and system files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from propl_monai.errors import ProPLError

DEPTH = 2  # a download unpacked into a folder of its own, inside the folder that a user names
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}


def visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden and system files, sorted by name.

    Raises:
        ProPLError: the folder is missing or may not be listed.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ProPLError(
            folder, f"cannot be listed ({error.strerror})", "check the path and its permissions"
        ) from error
    return [entry for entry in entries if entry.name[0] != "." and entry.name.lower() not in _SYSTEM_FILES]


def find_folders(folder: Path, fits: Callable[[Path], bool], depth: int = DEPTH) -> Iterator[Path]:
    """The folders that fit: the given one, and those up to `depth` levels inside it, in the order of their names.

    Raises:
        ProPLError: a folder may not be listed.
    """
    if fits(folder):
        yield folder
    if depth > 0:
        for child in visible(folder):
            if child.is_dir():
                yield from find_folders(child, fits, depth - 1)
