"""Replace a folder as a whole: the new one is written beside it under another name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from propl_monai.common.files import TEMPORARY_PREFIX
from propl_monai.errors import ProPLError


def require_replaceable(home: Path, ours: bool) -> None:
    """Check that whatever is at `home` may be replaced; `ours` says that this package made it."""
    if not os.path.lexists(home):
        return
    if home.is_symlink() or not home.is_dir() or not (ours or not any(home.iterdir())):
        cure = "move it away, or choose another folder for the datalist"
        raise ProPLError(home, "would be replaced, but was not made by this package", cure)


@contextmanager
def staging_for(home: Path) -> Iterator[Path]:
    """A path beside `home` to write the new folder to; leftovers are removed before and after."""
    staging = home.with_name(f"{TEMPORARY_PREFIX}{home.name}")
    _remove(home, staging)
    try:
        yield staging
    finally:
        _remove(home, staging)


def take_place(staging: Path, home: Path) -> Path:
    """Move the new folder to `home`, and return that; if this fails, the old folder is back in its place."""
    old = _set_aside(home)
    try:
        if home.exists():
            home.rename(old)
        staging.rename(home)
    except OSError as error:
        if old.exists() and not home.exists():
            old.rename(home)
        raise ProPLError(home, f"cannot be replaced ({error.strerror})", "check its permissions") from error
    return home


def _remove(home: Path, staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    if home.exists():  # else a kill came between the two renames, and only the old one exists
        shutil.rmtree(_set_aside(home), ignore_errors=True)
    elif _set_aside(home).exists():
        _set_aside(home).rename(home)


def _set_aside(home: Path) -> Path:
    return home.with_name(f"{TEMPORARY_PREFIX}old-{home.name}")
