"""The journal of an output folder, predictions.jsonl: one JSON line per finished file, so that a later run skips it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

FORMAT = "propl-predictions/1"
Entry = dict[str, Any]


class Journal:
    """The first line holds the settings, every other line one finished file.

    An entry is {"name" (of the results), "sha256" (of the input), "options", "files", "rows", …}. It stays on the disk: of a
    hundred thousand files, memory holds names and places alone.

    A line is added after the pictures that it names are complete on disk. A kill may cut the last line short: that file is
    then predicted again.

    Args:
        path: of the journal, read if it exists.
        settings: what all results in the folder depend on, JSON values.
        overwrite: forget what was predicted with other settings.
        folder: the output folder; that of the journal if None.
        others: more journals of this folder, whose entries are taken over; the later journal wins.
        holds: whether a file belongs into this journal, by the name of its results; None for all.
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
        found: dict[str, tuple[Path, int]] = {}
        existing = [journal for journal in (path, *others) if journal.exists()]
        for journal in sorted(existing, key=lambda journal: journal.stat().st_mtime_ns):
            found |= {name: (journal, place) for name, place in self._index(journal, overwrite)}
        self._places: dict[str, int] = {}
        write_atomically(path, self._copied({name: at for name, at in found.items() if holds is None or holds(name)}))

    def _index(self, path: Path, overwrite: bool) -> Iterator[tuple[str, int]]:
        """Name and place of each entry of a journal; of none where its settings differ and may be overwritten."""
        with path.open("rb") as stream:
            head = _parsed(stream.readline())
            before = head.get("settings")
            if head.get("format") != FORMAT or not isinstance(before, dict):
                raise ProPLError(path, "is no journal of predictions", "choose another output folder, or delete it")
            changed = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
            if changed and not overwrite:
                values = "; ".join(
                    f"{key} {before.get(key)!r} there, {self.settings.get(key)!r} now" for key in changed
                )
                cure = "choose another output folder, or overwrite it (--overwrite)"
                raise ProPLError(self.folder, f"holds results of other settings: {values}", cure)
            place = stream.tell()
            for line in () if changed else stream:
                entry = _parsed(line)
                if "name" in entry:
                    yield entry["name"], place
                place += len(line)

    def _copied(self, found: Mapping[str, tuple[Path, int]]) -> Iterator[bytes]:
        """The lines of a new journal of these entries, whose places it takes down."""
        line = json.dumps({"format": FORMAT, "settings": self.settings}).encode() + b"\n"
        yield line
        end = len(line)
        with ExitStack() as opened:
            streams = {path: opened.enter_context(path.open("rb")) for path in {path for path, _ in found.values()}}
            for name, (path, place) in found.items():
                streams[path].seek(place)
                line = streams[path].readline().rstrip() + b"\n"  # the last one of a killed run may lack its end
                yield line
                self._places[name] = end
                end += len(line)

    def read(self, names: Iterable[str]) -> Iterator[Entry]:
        """The entries of these files, from the disk: memory holds no more than where they are."""
        with self.path.open("rb") as stream:
            for name in names:
                stream.seek(self._places[name])
                yield _parsed(stream.readline())

    def done(self, name: str, sha256: str, options: Mapping[str, Any]) -> Entry | None:
        """The entry of a file that was predicted with these options and whose results are all there; else None."""
        if name not in self._places:
            return None
        (entry,) = self.read([name])
        if (entry.get("sha256"), entry.get("options")) != (sha256, options):
            return None
        return entry if all((self.folder / file).is_file() for file in entry["files"]) else None

    def results(self, name: str, sha256: str) -> frozenset[Path]:
        """The results of a file, predicted before from the same bytes with whatever options, that are there."""
        entries = self.read([name]) if name in self._places else ()
        files = (self.folder / file for entry in entries if entry.get("sha256") == sha256 for file in entry["files"])
        return frozenset(file for file in files if file.is_file())

    def add(self, entry: Entry) -> None:
        """Add a finished file."""
        try:
            with self.path.open("ab") as stream:
                place = stream.tell()
                stream.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            cure = "check the folder, its permissions and the free space"
            raise ProPLError(self.path, f"cannot be written ({error.strerror})", cure) from error
        self._places[entry["name"]] = place


def _parsed(line: bytes) -> dict[str, Any]:
    """The object in a line; empty where the line holds none."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
