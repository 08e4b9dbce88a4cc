"""What a folder of predictions holds, one JSON line a file, so that a second run knows what is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

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
        folder: of the results; that of the journal if None.
        others: more journals of this folder, whose entries are taken over; of two for one file the later journal counts.
        holds: tells by its name whether a file belongs into this journal; None takes all.

    Attributes:
        entries: name of the results: {"name", "sha256" (of the input), "asked", "files", "rows"}.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        overwrite: bool = False,
        folder: Path | None = None,
        others: Sequence[Path] = (),
        holds: Callable[[str], bool] | None = None,
    ) -> None:
        self.path, self.settings, self.folder = path, json.loads(json.dumps(settings)), folder or path.parent
        there = [each for each in (path, *others) if each.exists()]
        found: dict[str, Entry] = {}
        for each in sorted(there, key=lambda journal: journal.stat().st_mtime_ns):
            found |= self._read(each, overwrite)
        self.entries = {name: entry for name, entry in found.items() if holds is None or holds(name)}
        first = {"format": FORMAT, "settings": self.settings}
        lines = [json.dumps(line) + "\n" for line in (first, *self.entries.values())]
        write_atomically(path, "".join(lines).encode())

    def _read(self, path: Path, overwrite: bool) -> dict[str, Entry]:
        """The entries of one journal; none where it has other settings and they are to be forgotten."""
        first, *others = path.read_bytes().splitlines() or [b""]
        head = _parsed(first)
        if head is None or head.get("format") != FORMAT or not isinstance(head.get("settings"), dict):
            raise ProPLError(path, "is no journal of predictions", "choose another output folder, or delete it")
        there = head["settings"]
        differing = [key for key in {**there, **self.settings} if there.get(key) != self.settings.get(key)]
        if not differing:
            entries = (_parsed(line) for line in others)
            return {entry["name"]: entry for entry in entries if entry is not None and "name" in entry}
        if overwrite:
            return {}
        told = "; ".join(f"{key} {there.get(key)!r} there, {self.settings.get(key)!r} now" for key in differing)
        cure = "choose another output folder, or overwrite it (--overwrite)"
        raise ProPLError(self.folder, f"holds results of other settings: {told}", cure)

    def done(self, name: str, sha256: str, asked: Mapping[str, Any]) -> Entry | None:
        """The entry of a file whose results, asked for in the same way, are all there; else None."""
        entry = self.entries.get(name)
        if entry is None or entry["sha256"] != sha256 or entry["asked"] != asked:
            return None
        return entry if all((self.folder / file).is_file() for file in entry["files"]) else None

    def add(self, entry: Entry) -> None:
        """Note a file that is done."""
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
