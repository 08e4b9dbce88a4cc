"""The journal of an output folder, predictions.jsonl: one JSON line per finished file, so that a later run skips it."""

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
    """The first line holds the settings, every other line one finished file.

    A line is added after the pictures that it names are complete on disk. A kill may cut the last line short: that file is
    then predicted again.

    Args:
        path: of the journal, read if it exists.
        settings: what all results in the folder depend on, JSON values.
        overwrite: forget what was predicted with other settings.
        folder: the output folder; that of the journal if None.
        others: more journals of this folder, whose entries are taken over; the later journal wins.
        holds: whether a file belongs into this journal, by the name of its results; None for all.

    Attributes:
        entries: per name of results: {"name", "sha256" (of the input), "options", "files", "rows"}.
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
        found: dict[str, Entry] = {}
        existing = [journal for journal in (path, *others) if journal.exists()]
        for journal in sorted(existing, key=lambda journal: journal.stat().st_mtime_ns):
            found |= self._read(journal, overwrite)
        self.entries = {name: entry for name, entry in found.items() if holds is None or holds(name)}
        first = {"format": FORMAT, "settings": self.settings}
        lines = [json.dumps(line) + "\n" for line in (first, *self.entries.values())]
        write_atomically(path, "".join(lines).encode())

    def _read(self, path: Path, overwrite: bool) -> dict[str, Entry]:
        """The entries of one journal; none where its settings differ and may be overwritten."""
        first, *others = path.read_bytes().splitlines() or [b""]
        head = _parsed(first)
        before = head.get("settings")
        if head.get("format") != FORMAT or not isinstance(before, dict):
            raise ProPLError(path, "is no journal of predictions", "choose another output folder, or delete it")
        changed = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
        if not changed:
            return {entry["name"]: entry for entry in map(_parsed, others) if "name" in entry}
        if overwrite:
            return {}
        values = "; ".join(f"{key} {before.get(key)!r} there, {self.settings.get(key)!r} now" for key in changed)
        cure = "choose another output folder, or overwrite it (--overwrite)"
        raise ProPLError(self.folder, f"holds results of other settings: {values}", cure)

    def done(self, name: str, sha256: str, options: Mapping[str, Any]) -> Entry | None:
        """The entry of a file that was predicted with these options and whose results are all there; else None."""
        entry = self.entries.get(name, {})
        if (entry.get("sha256"), entry.get("options")) != (sha256, options):
            return None
        return entry if all((self.folder / file).is_file() for file in entry["files"]) else None

    def add(self, entry: Entry) -> None:
        """Add a finished file."""
        self.entries[entry["name"]] = entry
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            cure = "check the folder, its permissions and the free space"
            raise ProPLError(self.path, f"cannot be written ({error.strerror})", cure) from error


def _parsed(line: bytes) -> dict[str, Any]:
    """The object in a line; empty where the line holds none."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
