"""What a folder of predictions holds, one JSON line a file, so that a second run knows what is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from propl_monai.errors import ProPLError
from propl_monai.files import write_atomically

FORMAT = "propl-predictions/1"
Entry = dict[str, Any]


class Journal:
    """The first line tells the settings, every other one a file that is done.

    A line is added after the pictures that it names are whole on disk. A kill may cut the last line short: that file is
    then done again.

    Args:
        path: read if it exists.
        settings: what all results in the folder depend on, JSON values.
        overwrite: forget what was done with other settings.

    Attributes:
        entries: name of the results: {"name", "sha256" (of the input), "asked", "files", "rows"}.

    Raises:
        ProPLError: the folder holds results of other settings (they are named), or the file is not a journal.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.entries: dict[str, Entry] = {}
        if path.exists():
            self._read(overwrite)
        first = {"format": FORMAT, "settings": self.settings}
        lines = [json.dumps(line) + "\n" for line in (first, *self.entries.values())]
        write_atomically(path, "".join(lines).encode())

    def _read(self, overwrite: bool) -> None:
        first, *others = self.path.read_bytes().splitlines() or [b""]
        head = _parsed(first)
        if head is None or head.get("format") != FORMAT or not isinstance(head.get("settings"), dict):
            raise ProPLError(self.path, "is no journal of predictions", "choose another output folder, or delete it")
        there = head["settings"]
        differing = [key for key in {**there, **self.settings} if there.get(key) != self.settings.get(key)]
        if not differing:
            entries = (_parsed(line) for line in others)
            self.entries = {entry["name"]: entry for entry in entries if entry is not None and "name" in entry}
        elif not overwrite:
            told = "; ".join(f"{key} {there.get(key)!r} there, {self.settings.get(key)!r} now" for key in differing)
            cure = "choose another output folder, or overwrite it (--overwrite)"
            raise ProPLError(self.path.parent, f"holds results of other settings: {told}", cure)

    def done(self, name: str, sha256: str, asked: Mapping[str, Any]) -> Entry | None:
        """The entry of a file whose results, asked for in the same way, are all there; else None."""
        entry = self.entries.get(name)
        if entry is None or entry["sha256"] != sha256 or entry["asked"] != asked:
            return None
        return entry if all((self.path.parent / file).is_file() for file in entry["files"]) else None

    def add(self, entry: Entry) -> None:
        """Note a file that is done.

        Raises:
            ProPLError: the line cannot be written.
        """
        self.entries[entry["name"]] = entry
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            cure = "check the folder, its permissions and the free space"
            raise ProPLError(self.path, f"cannot be written ({error.strerror})", cure) from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
