"""Readers of folder layouts: one file each, from a folder on disk to a `Datalist`. They open no picture and need no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from propl_monai.datalist import Datalist
from propl_monai.errors import unknown
from propl_monai.sources.folder import read_folder

SOURCES: dict[str, Callable[[Path], Datalist]] = {"folder": read_folder}


def read_source(name: str, root: str | Path) -> Datalist:
    """Read a folder with the reader of that name.

    Raises:
        ProPLError: no such reader, or whatever the reader finds wrong.
    """
    if name not in SOURCES:
        raise unknown("source", "layout", name, SOURCES)
    return SOURCES[name](Path(root))
