"""What a run of `predict_paths` leaves in its folder: results, the journal, measurements.csv and run.json."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.files import write_atomically
from propl_monai.common.run_record import RunRecord, conclude
from propl_monai.errors import EXIT_OK, ProPLError
from propl_monai.inference.journal import Entry, Journal
from propl_monai.inference.measurements import Measurements, measure
from propl_monai.inference.prediction import Prediction, write_predictions

JOURNAL, RUN, MEASUREMENTS = "predictions.jsonl", "run.json", "measurements.csv"
COLUMNS = ("name", "file", "frame", "task", "row_mm", "column_mm", *Measurements.__dataclass_fields__)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        done, skipped, refused: numbers of files; skipped ones were done before.
        pictures: frames that were segmented now.
        findings: why files were refused.
        code: exit code: 0, 3 when some files were refused, 2 when all were.
    """

    done: int
    skipped: int
    pictures: int
    findings: tuple[ProPLError, ...]
    code: int

    @property
    def refused(self) -> int:
        return len(self.findings)


@dataclass
class File:
    """An input file, and what was written of its frames so far.

    Attributes:
        path, sha256: of the input.
        name: of its results, relative to the output folder, without suffix.
        count: of its frames.
    """

    path: Path
    name: str
    sha256: str
    count: int
    written: int = 0
    outputs: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def frame_name(self, number: int) -> str:
        """The name of the results of a frame, from 1."""
        return self.name if self.count == 1 else f"{self.name}_frame_{number:04d}"


class PredictedFiles:
    """Writes results as they come, and the papers at the end. One thread at a time may use it.

    Args:
        folder: of the results.
        asked: tasks, probability, uncertainty, overlay and measurements.
        journal: of the folder.
        record: of the run.
        total: number of input files.
        progress: called with (files done, files in all).
    """

    def __init__(
        self,
        folder: Path,
        asked: dict[str, Any],
        journal: Journal,
        record: RunRecord,
        total: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.folder, self.asked, self.journal, self.record = folder, asked, journal, record
        self.total, self.progress = total, progress
        self.ready: list[str] = []  # names of files whose results are there
        self.findings: list[ProPLError] = []
        self.skipped = self.pictures = 0

    def write(self, file: File, number: int, predictions: Sequence[Prediction], below: np.ndarray | None) -> None:
        """Write the results of a frame, and note its file in the journal when it was the last.

        Args:
            file: that the frame is of.
            number: of the frame, from 1.
            predictions: one a task.
            below: the picture for the overlay, uint8 (H, W); None for no overlay.
        """
        base = self.folder / file.frame_name(number)
        written = write_predictions(base, predictions, self.asked["probability"], below)
        file.outputs += [path.relative_to(self.folder).as_posix() for path in written]
        if self.asked["measurements"]:
            file.rows += [_row(file, number, one) for one in predictions]
        file.written += 1
        self.pictures += 1
        if file.written == file.count:
            entry: Entry = {"name": file.name, "sha256": file.sha256, "asked": self.asked}
            self.journal.add({**entry, "files": file.outputs, "rows": file.rows})
            self._ready(file.path, file.name, file.sha256)

    def skip(self, path: Path, name: str, sha256: str) -> None:
        """Note an input whose results are there already."""
        self.skipped += 1
        self._ready(path, name, sha256)

    def refuse(self, path: Path, error: ProPLError) -> None:
        """Note an input that cannot be read, and why."""
        logger.error("%s", error)
        self.findings.append(error)
        self.record.finding(path, f"{error.fact}; {error.cure}")
        self._tell()

    def _ready(self, path: Path, name: str, sha256: str) -> None:
        self.ready.append(name)
        self.record.add_input(path, sha256)
        self._tell()

    def _tell(self) -> None:
        if self.progress:
            self.progress(len(self.ready) + len(self.findings), self.total)

    def _outputs(self) -> list[Path]:
        return [self.folder / file for name in sorted(self.ready) for file in self.journal.entries[name]["files"]]

    def finish(self) -> Outcome:
        """Write measurements.csv, if asked for, and run.json."""
        outputs = self._outputs()
        if self.asked["measurements"]:
            rows = [row for name in sorted(self.ready) for row in self.journal.entries[name]["rows"]]
            outputs.append(self.record.path.with_name(MEASUREMENTS))
            write_atomically(outputs[-1], _csv(rows))
        # A shard of few files may have none; elsewhere that is an error before this.
        status, code = conclude(len(self.ready), len(self.findings)) if self.total else ("finished", EXIT_OK)
        done = len(self.ready) - self.skipped
        outcome = Outcome(done, self.skipped, self.pictures, tuple(self.findings), code)
        results = {"files": done, "skipped": self.skipped, "refused": outcome.refused, "pictures": self.pictures}
        self.record.write(status, outputs, results)
        return outcome

    def fail(self, error: BaseException) -> None:
        """Leave a run.json that says what ended the run."""
        self.record.finding(self.folder, f"{type(error).__name__}: {error}")
        with suppress(ProPLError):  # what stopped the run may stop this too, and is told already
            self.record.write("failed", self._outputs())


def _row(file: File, number: int, prediction: Prediction) -> dict[str, Any]:
    row, column = prediction.spacing_mm or (None, None)
    frame = number if file.count > 1 else None
    place = {"name": file.name, "file": file.path.name, "frame": frame, "task": prediction.task}
    found = asdict(measure(prediction.mask, prediction.spacing_mm, prediction.task))
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    return {**place, "row_mm": row, "column_mm": column, **rounded}


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")  # file names may hold what is not UTF-8
