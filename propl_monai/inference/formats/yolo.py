"""YOLO: `NAME.txt` beside each picture's name, one polygon a line, and one `classes.txt` for the folder.

A line is the number of the class, from 0, and x and y of each corner as parts of width and height.
Format: https://docs.ultralytics.com/datasets/segment/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from propl_monai import tasks as registry
from propl_monai.errors import ProPLError
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.masks import Masks
from propl_monai.inference.formats.outlines import outlines


class Yolo(Format):
    """See the module. The classes are all tasks, so that their numbers never change."""

    name, shared = "yolo", "classes.txt"

    def check(self, path: Path, name: str) -> None:
        """Refuse a file whose labels would take the place of the list of classes."""
        if f"{name}.txt".casefold() == self.shared:
            raise ProPLError(path, f"its labels would overwrite {self.shared} of --format yolo", "rename the file")

    def files(self, masks: Masks) -> dict[str, bytes]:
        """One file per frame, empty where there is no target."""
        height, width = masks.size
        written = {}
        for name, frame in zip(masks.names(), masks, strict=True):
            lines = []
            for task, mask in zip(masks.tasks, frame, strict=True):
                for outline in outlines(mask):
                    corners = (outline / (width, height)).ravel()
                    lines.append(
                        f"{registry.known_names().index(task.name)} " + " ".join(f"{part:.7f}" for part in corners)
                    )
            written[f"{name}.txt"] = "".join(f"{line}\n" for line in lines).encode()
        return written

    def whole(self, parts: Sequence[Any]) -> bytes:
        """The names, one a line; the first is class 0."""
        return "".join(f"{name}\n" for name in registry.known_names()).encode()
