"""`propl predict`: masks of files, folders and cines. One bad file stops nothing, and a second run skips what is done."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from propl_monai.checkpoint import sweep_orphans
from propl_monai.errors import ProPLError
from propl_monai.files import file_sha256, lock_folder, write_atomically
from propl_monai.images import Cine, Picture, read_frames
from propl_monai.input_files import find_inputs
from propl_monai.journal import Entry, Journal
from propl_monai.measurements import Measurements, measure, require_spacing
from propl_monai.prediction import Prediction, write_predictions
from propl_monai.predictor import Predictor
from propl_monai.run_record import RunRecord, conclude

JOURNAL, RUN, MEASUREMENTS = "predictions.jsonl", "run.json", "measurements.csv"
COLUMNS = ("name", "file", "frame", "task", "row_mm", "column_mm", *Measurements.__dataclass_fields__)
Spacing = tuple[float, float]
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


def predict_paths(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    output_dir: str | Path,
    tasks: str | Sequence[str],
    *,
    probability: bool = False,
    uncertainty: bool = False,
    overlay: bool = False,
    measurements: bool = False,
    spacing_mm: Spacing | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Segment files, folders (however deep) and cines (each frame), all formats of `propl_monai.images`.

    A picture `a/b.png` becomes `a/b_<task>.png` and what `prediction.write_predictions` writes beside it; the frames of a
    cine become `b_frame_0001_<task>.png` and so on. `predictions.jsonl` remembers what is done, and run.json is written.

    A file is skipped when it was done before from the same bytes, with the same settings and outputs. A folder that holds
    results of other settings (weights, decoder, threshold, tta, spacing) is refused; other tasks or outputs are added.

    Args:
        predictor: with decoder, threshold, tta and batch (of frames of one cine) of its own.
        inputs: files and folders.
        output_dir: made; sub-folders of the inputs are kept in it.
        tasks: names, codes or slugs.
        probability, uncertainty, overlay: what to write beside masks.
        measurements: write measurements.csv, see `propl_monai.measurements`.
        spacing_mm: height and width of a pixel, for files that do not tell theirs.
        overwrite: do again what was done with other settings.
        progress: called with (files done, files in all).

    Raises:
        ProPLError: nothing to read, an unknown task, results of other settings, another process at work in the folder, or
            a result that cannot be written.
    """
    asked = {"tasks": list(dict.fromkeys(predictor.names(tasks))), "probability": probability}
    asked |= {"uncertainty": uncertainty, "overlay": overlay, "measurements": measurements}
    spacing = require_spacing(spacing_mm)
    files = find_inputs(inputs, output_dir, cines=True)
    output = Path(output_dir)
    with lock_folder(output):
        settings = {**predictor.settings, "spacing_mm": spacing}
        journal = Journal(output / JOURNAL, settings, overwrite)
        for folder in {(output / name).parent for _, name in files}:
            sweep_orphans(folder)
        about = {"predictor": predictor.about, "device": str(predictor.device), "batch": predictor.batch}
        options = {"inputs": [str(path) for path in inputs], **asked, **settings, **about}
        record = RunRecord(output / RUN, "predict", options)
        return _Run(predictor, output, asked, spacing, journal, record, len(files), progress).all(files)


@dataclass
class _File:
    """A file whose frames are being segmented."""

    path: Path
    name: str
    sha256: str
    cine: Cine
    written: int = 0
    outputs: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Frame:
    file: _File
    number: int
    picture: Picture

    @property
    def name(self) -> str:
        return self.file.name if self.file.cine.count == 1 else f"{self.file.name}_frame_{self.number:04d}"


class _Run:
    """The state of one call of `predict_paths`."""

    def __init__(
        self,
        predictor: Predictor,
        output: Path,
        asked: dict[str, Any],
        spacing: Spacing | None,
        journal: Journal,
        record: RunRecord,
        total: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.predictor, self.output, self.asked, self.spacing = predictor, output, asked, spacing
        self.journal, self.record, self.total, self.progress = journal, record, total, progress
        self.ready: list[str] = []  # names of files whose results are there
        self.findings: list[ProPLError] = []
        self.skipped = self.pictures = 0

    def all(self, files: Sequence[tuple[Path, str]]) -> Outcome:
        self.record.write("running")
        try:
            for batch in self._batches(files):
                pictures = [frame.picture for frame in batch]
                found = self.predictor.predict(pictures, self.asked["tasks"], self.asked["uncertainty"])
                for frame, predictions in zip(batch, found, strict=True):
                    self._write(frame, predictions)
            return self._finish()
        except BaseException as error:  # Ctrl-C and a full disk alike leave papers that say so
            self.record.finding(self.output, f"{type(error).__name__}: {error}")
            with suppress(ProPLError):  # what stopped the run may stop this too, and is told already
                self.record.write("failed", self._outputs())
            raise

    def _batches(self, files: Sequence[tuple[Path, str]]) -> Iterator[list[_Frame]]:
        for path, name in files:
            try:
                yield from self._batches_of(path, name)
            except ProPLError as error:
                logger.error("%s", error)
                self.findings.append(error)
                self.record.finding(path, f"{error.fact}; {error.cure}")
                self._tell()

    def _batches_of(self, path: Path, name: str) -> Iterator[list[_Frame]]:
        """Of one file: a network's last bits depend on its batch, so what a second run completes must not."""
        sha256 = file_sha256(path)
        if self.journal.done(name, sha256, self.asked):
            self.skipped += 1
            self._ready(path, name, sha256)
            return
        file = _File(path, name, sha256, read_frames(path))
        spacing = file.cine.spacing_mm or self.spacing
        frames = (_Frame(file, number, Picture(pixels, spacing)) for number, pixels in enumerate(file.cine, start=1))
        while batch := list(islice(frames, self.predictor.batch)):
            yield batch

    def _write(self, frame: _Frame, predictions: list[Prediction]) -> None:
        file = frame.file
        below = frame.picture.pixels if self.asked["overlay"] else None
        written = write_predictions(self.output / frame.name, predictions, self.asked["probability"], below)
        file.outputs += [path.relative_to(self.output).as_posix() for path in written]
        if self.asked["measurements"]:
            file.rows += [_row(frame, one) for one in predictions]
        file.written += 1
        self.pictures += 1
        if file.written == file.cine.count:
            entry: Entry = {"name": file.name, "sha256": file.sha256, "asked": self.asked}
            self.journal.add({**entry, "files": file.outputs, "rows": file.rows})
            self._ready(file.path, file.name, file.sha256)

    def _ready(self, path: Path, name: str, sha256: str) -> None:
        self.ready.append(name)
        self.record.add_input(path, sha256)
        self._tell()

    def _tell(self) -> None:
        if self.progress:
            self.progress(len(self.ready) + len(self.findings), self.total)

    def _outputs(self) -> list[Path]:
        return [self.output / file for name in sorted(self.ready) for file in self.journal.entries[name]["files"]]

    def _finish(self) -> Outcome:
        outputs = self._outputs()
        if self.asked["measurements"]:
            rows = [row for name in sorted(self.ready) for row in self.journal.entries[name]["rows"]]
            outputs.append(self.output / MEASUREMENTS)
            write_atomically(outputs[-1], _csv(rows))
        status, code = conclude(len(self.ready), len(self.findings))
        done = len(self.ready) - self.skipped
        outcome = Outcome(done, self.skipped, self.pictures, tuple(self.findings), code)
        results = {"files": done, "skipped": self.skipped, "refused": outcome.refused, "pictures": self.pictures}
        self.record.write(status, outputs, results)
        return outcome


def _row(frame: _Frame, prediction: Prediction) -> dict[str, Any]:
    row, column = prediction.spacing_mm or (None, None)
    number = frame.number if frame.file.cine.count > 1 else None
    place = {"name": frame.file.name, "file": frame.file.path.name, "frame": number, "task": prediction.task}
    found = asdict(measure(prediction.mask, prediction.spacing_mm, prediction.task))
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    return {**place, "row_mm": row, "column_mm": column, **rounded}


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")  # file names may hold what is not UTF-8
