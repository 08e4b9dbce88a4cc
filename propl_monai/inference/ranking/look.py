"""What a strategy needs to know of pictures, each looked at once; bad files are refused by name, what is found is kept."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from propl_monai.common.files import file_sha256
from propl_monai.common.run_record import RunRecord
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_frames
from propl_monai.images.picture import NoPicture
from propl_monai.inference.doubts import Doubts
from propl_monai.inference.journal import Entry, Journal
from propl_monai.inference.predictor import Predictor, Prepared
from propl_monai.inference.ranking.strategies import Strategy
from propl_monai.inference.threads import prefetch

LABELLED = "labelled: "  # before the names of pictures that have their label
Row = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass
class _File:
    """A file that is being looked at."""

    path: Path
    name: str
    sha256: str
    count: int
    rows: list[Row] = field(default_factory=list)
    doubts: Doubts = field(default_factory=Doubts)


@dataclass(frozen=True)
class _Frame:
    """A frame that was read; `prepared` is None where the network need not see it."""

    file: _File
    number: int
    prepared: Prepared | None


@dataclass(frozen=True)
class _Told:
    """A file without frames to look at: done before, or why it is refused or passed over."""

    path: Path
    name: str
    sha256: str = ""
    refused: str = ""


@dataclass
class Look:
    """Looks at files one batch after the other, and notes in the journal what it finds.

    Args:
        predictor: of the uncertainty that the strategy needs.
        task: its name.
        strategy: what is needed.
        journal: of what was found before; files that stand in it with the same bytes are not read again.
        record: gets inputs and refusals.
        progress: called with (files done, files in all).

    Attributes:
        done: names of the files that are known now, in the order given.
        looked, refused, passed_over: numbers of files.
    """

    predictor: Predictor
    task: str
    strategy: Strategy
    journal: Journal
    record: RunRecord
    progress: Callable[[int, int], None] | None = None
    done: dict[str, Path] = field(default_factory=dict)
    looked: int = 0
    refused: set[Path] = field(default_factory=set)
    passed_over: int = 0

    def at(self, files: Sequence[tuple[Path, str]], named: Iterable[Path] = ()) -> None:
        """Look at what is not known yet.

        Args:
            files: and the names of what is found of each.
            named: files that the user named one by one; one of these that holds no picture is refused, one that lay in a
                folder is passed over.
        """
        groups = prefetch(self._groups(files, {path.resolve() for path in named}))
        with closing(groups):
            for group in groups:
                self._take(group, len(files))

    def _groups(self, files: Sequence[tuple[Path, str]], named: set[Path]) -> Iterator[list[_Frame | _Told]]:
        group: list[_Frame | _Told] = []
        for path, name in files:
            for step in self._steps(path, name, named):
                group.append(step)
                if len(group) == self.predictor.batch:
                    yield group
                    group = []
        if group:
            yield group

    def _steps(self, path: Path, name: str, named: set[Path]) -> Iterator[_Frame | _Told]:
        try:
            sha256 = file_sha256(path)
            if self.journal.done(name, sha256, {}):
                yield _Told(path, name, sha256)
                return
            cine = read_frames(path)
            file = _File(path, name, sha256, cine.count)
            # How certain the network is of a picture with a label, nobody asks: its features are enough.
            looks = self.strategy.features if name.startswith(LABELLED) else self.strategy.looks
            box = self.predictor.box_of(cine) if looks else None
            for number, pixels in enumerate(cine, start=1):
                prepared = None
                if looks:
                    prepared = self.predictor.prepare(Picture(pixels), bool(self.strategy.uncertainty_of), box)
                yield _Frame(file, number, prepared)
        except NoPicture as error:
            reason = f"{error.fact}; {error.cure}" if path.resolve() in named else ""
            yield _Told(path, name, refused=reason)
        except ProPLError as error:
            yield _Told(path, name, refused=f"{error.fact}; {error.cure}")

    def _take(self, group: Sequence[_Frame | _Told], total: int) -> None:
        frames = [one for one in group if isinstance(one, _Frame)]
        found = iter(self._values(frames))
        for one in group:
            if isinstance(one, _Frame):
                row, doubts = next(found), one.file.doubts
                one.file.rows.append(row)
                if one.number == one.file.count:
                    entry: Entry = {"name": one.file.name, "sha256": one.file.sha256, "options": {}, "files": []}
                    entry |= {"rows": one.file.rows, "doubts": doubts.to_json(), "frames": one.file.count}
                    self.journal.add(entry)
                    self.looked += 1
                    self._know(one.file.path, one.file.name, one.file.sha256, total)
            elif one.sha256:
                self._know(one.path, one.name, one.sha256, total)
            elif one.refused:
                logger.error("%s: %s", one.path, one.refused)
                self.refused.add(one.path)
                self.record.finding(one.path, one.refused)
                self._show(total)
            else:
                self.passed_over += 1
                self._show(total)

    def _values(self, frames: Sequence[_Frame]) -> list[Row]:
        """A row for each frame; the doubts go to their files."""
        prepared = [one.prepared for one in frames if one.prepared is not None]
        uncertain = bool(self.strategy.uncertainty_of)
        maps, pooled = self.predictor.answer(prepared, [self.task], uncertain) if prepared else ((), None)
        if self.strategy.features and prepared and pooled is None:
            self.predictor.pooled(prepared[:1])  # says why there are none
        answers = zip(maps, repeat(None) if pooled is None else pooled, strict=False)
        rows: list[Row] = []
        for frame in frames:
            rows.append({})
            if frame.prepared is None:
                continue
            logits, features = next(answers)
            (found,) = self.predictor.finish(frame.prepared, logits, [self.task], features, not uncertain)
            frame.file.doubts.add(frame.number, [found])
            if uncertain:
                rows[-1]["uncertainty"] = found.relative_uncertainty
            if self.strategy.features:
                rows[-1]["features"] = base64.b64encode(np.asarray(features, "<f4").tobytes()).decode()
            if found.scores:
                rows[-1]["scores"] = asdict(found.scores)
        return rows

    def _know(self, path: Path, name: str, sha256: str, total: int) -> None:
        self.done[name] = path
        self.record.add_input(path, sha256)
        self._show(total)

    def _show(self, total: int) -> None:
        if self.progress:
            self.progress(len(self.done) + len(self.refused) + self.passed_over, total)


def features_of(row: Row) -> NDArray[np.float32]:
    """The pooled features (C,) in a row of the journal; (0,) where it has none."""
    return np.frombuffer(base64.b64decode(row.get("features", "")), "<f4")
