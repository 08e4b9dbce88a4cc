"""What a prediction leaves in its output folder: results, journal, measurements.csv, files of formats and run.json."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.files import write_atomically
from propl_monai.common.run_record import RunRecord, conclude
from propl_monai.errors import EXIT_OK, ProPLError
from propl_monai.inference.cines import area_curve
from propl_monai.inference.doubts import doubted, lines, reason, summary
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.masks import Masks
from propl_monai.inference.formats.registry import PNG, find_formats
from propl_monai.inference.inputs import InputFile
from propl_monai.inference.journal import Entry, Journal
from propl_monai.inference.measurements import MEASUREMENTS, csv_lines, measurement_row
from propl_monai.inference.prediction import Prediction, write_predictions

logger = logging.getLogger(__name__)


class _CannotCarry(Exception):
    """A format cannot carry this input; the text says why."""


@dataclass(frozen=True)
class Stored:
    """The files and the rows of measurements.csv of one frame."""

    files: list[Path] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        done, skipped, refused: numbers of files; skipped ones were predicted before.
        pictures: frames that were segmented now.
        code: exit code: 0, 3 when some files were refused, 2 when all were.
    """

    done: int
    skipped: int
    refused: int
    pictures: int
    code: int


@dataclass
class OutputFolder:
    """Writes results as they come, and at the end measurements.csv and run.json.

    But for `store`, one thread at a time may use it.

    Args:
        folder: the output folder.
        options: tasks, probability, uncertainty, overlay, measurements, formats and strict, as in `predict_paths`; scores,
            the hash of what they are computed from, where there are any.
        record: of the run.
        total: number of input files.
        journal: of the folder; None for none.
        progress: called with (files done, files in all).

    Attributes:
        names: of the results of all files that are done; the journal has the rest.
        entries: what it would have, by name, where there is none.
        refused: paths of refused files.
        skipped, pictures: as in `Outcome`.
        passed_over: numbers of files that hold no picture, by kind.
    """

    folder: Path
    options: dict[str, Any]
    record: RunRecord
    total: int
    journal: Journal | None = None
    progress: Callable[[int, int], None] | None = None
    names: set[str] = field(default_factory=set)
    entries: dict[str, Entry] = field(default_factory=dict)
    skipped: int = 0
    refused: set[Path] = field(default_factory=set)
    pictures: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def strict(self) -> bool:
        """Whether masks in doubt are withheld."""
        return bool(self.options.get("strict"))

    @property
    def formats(self) -> list[Format]:
        """The formats of the masks, without PNG."""
        return find_formats(self.options.get("formats", []))

    def write(self, file: InputFile, number: int, predictions: Sequence[Prediction], below: np.ndarray | None) -> None:
        """Write the results of a frame, and note them: `store` and `note`."""
        self.note(file, number, predictions, self.store(file, number, predictions, below))

    def store(
        self, file: InputFile, number: int, predictions: Sequence[Prediction], below: np.ndarray | None
    ) -> Stored | ProPLError:
        """Write the results of a frame that are files of their own. Any number of threads may do so at the same time.

        Args:
            file: that holds the frame.
            number: of the frame, from 1.
            predictions: one per task.
            below: the picture for the overlay, uint8 (H, W); None for no overlay.

        Returns:
            What was written, or why it cannot be, such as for too long a name; a full disk raises.
        """
        if file.path in self.refused:
            return Stored()
        base, png = self.folder / file.frame_name(number), PNG in self.options.get("formats", [PNG])
        withheld = self._withheld(predictions)
        kept = [one for one, hidden in zip(predictions, withheld, strict=True) if not hidden]
        try:
            below = below if kept else None
            written = write_predictions(base, kept, self.options["probability"], below, png, file.there)
        except ProPLError as error:
            if error.of_machine or not isinstance(error.__cause__, OSError):
                raise
            return error
        rows: list[dict[str, Any]] = []
        if self.options["measurements"]:
            both = zip(predictions, withheld, strict=True)
            rows = [measurement_row(file, number, one, hidden) for one, hidden in both]
        return Stored(written, rows)

    def note(
        self, file: InputFile, number: int, predictions: Sequence[Prediction], stored: Stored | ProPLError
    ) -> None:
        """Take down what `store` gave for the next frame; after the last frame of a file, add the file to the journal.

        A file whose results could not be written is refused. Frames of a file come in their order.
        """
        if file.path in self.refused:
            return
        file.doubts.add(number, predictions)
        withheld = self._withheld(predictions)
        file.kept += withheld.count(False)
        last = file.written + 1 == file.count
        if last and not file.kept:
            self.refuse(file.path, f"{reason(file.doubts.to_json(), file.count)}; no mask is written (--strict)")
            return
        parts: dict[str, Any] = {}
        try:
            if isinstance(stored, ProPLError):
                raise stored
            written = list(stored.files)
            file.rows += stored.rows
            if file.masks is not None:
                masks = zip(predictions, withheld, strict=True)
                file.masks.add([one.mask & (not hidden) for one, hidden in masks])
                if last:
                    written += self._write_formats(file, file.masks, parts)
            if last and self.options["measurements"] and file.count > 1:
                written += self._write_areas(file)
        except _CannotCarry as error:
            self.refuse(file.path, str(error))
            return
        except ProPLError as error:
            if error.of_machine or not isinstance(error.__cause__, OSError):
                raise
            self.refuse(
                file.path, f"results {error.where} {error.fact}; rename the file, or choose another output folder"
            )
            return
        file.outputs += [path.relative_to(self.folder).as_posix() for path in written]
        file.written += 1
        self.pictures += 1
        if last:
            entry: Entry = {"name": file.name, "sha256": file.sha256, "options": self.options}
            entry |= {"files": file.outputs, "rows": file.rows} | ({"parts": parts} if parts else {})
            if doubts := file.doubts.to_json():
                entry |= {"doubts": doubts, "frames": file.count}
            if self.journal:
                self.journal.add(entry)
            else:
                self.entries[file.name] = entry
            self._add(file.path, entry)

    def _withheld(self, predictions: Sequence[Prediction]) -> list[bool]:
        return [self.strict and doubted(one) for one in predictions]

    def _write_formats(self, file: InputFile, masks: Masks, parts: dict[str, Any]) -> list[Path]:
        """Write the files of one input in all formats but PNG; `parts` is given what the files for the folder say of it."""
        written = []
        for one in self.formats:
            try:
                contents, part = one.files(masks), one.part(masks)
            except ProPLError as error:
                raise _CannotCarry(f"{error.fact}; {error.cure}") from error
            for name, content in contents.items():
                written.append(self.folder / name)
                if written[-1] not in file.there or not any(f"_{task.slug}." in name for task in masks.tasks):
                    write_atomically(written[-1], content)
            if one.shared:
                parts[one.name] = part
        return written

    def _write_areas(self, file: InputFile) -> list[Path]:
        """Write the area curve of a cine, from the rows of its frames."""
        areas = {task: [row.get("area") for row in file.rows if row["task"] == task] for task in self.options["tasks"]}
        unit = next((row["unit"] for row in file.rows if "unit" in row), "pixel")
        contents = {
            f"{file.name}_areas.csv": area_curve.to_table(areas, unit, file.seconds_per_frame),
            f"{file.name}_areas.svg": area_curve.to_picture(areas, unit, file.path.name),
        }
        for name, content in contents.items():
            write_atomically(self.folder / name, content)
        return [self.folder / name for name in contents]

    def skip(self, path: Path, entry: Entry) -> None:
        """Count an input whose results are there already; `entry` is that of the journal."""
        self.skipped += 1
        self._add(path, entry)

    def refuse(self, path: Path, reason: str) -> None:
        """Record an input that cannot be predicted, and why."""
        if path in self.refused:  # of a cine, writing a frame and reading the next one may both fail
            return
        logger.error("%s: %s", path, reason)
        self.refused.add(path)
        self.record.finding(path, reason)
        self._show_progress()

    def pass_over(self, reason: str) -> None:
        """Count a file of a folder that holds no picture; `reason` says what it is."""
        self.passed_over[reason.removeprefix("is a ")] += 1
        self._show_progress()

    def _add(self, path: Path, entry: Entry) -> None:
        self.names.add(entry["name"])
        self.record.add_input(path, entry["sha256"])
        self._show_progress()

    def _show_progress(self) -> None:
        if self.progress:
            self.progress(len(self.names) + len(self.refused) + self.passed_over.total(), self.total)

    def _done(self) -> Iterator[Entry]:
        """The entries of all files that are done, one after the other, by name."""
        names = sorted(self.names)
        return self.journal.read(names) if self.journal else map(self.entries.__getitem__, names)

    def _outputs(self) -> Iterator[Path]:
        return (self.folder / file for entry in self._done() for file in entry["files"])

    def finish(self) -> Outcome:
        """Write measurements.csv and the formats' files for the whole folder, if they are wanted, and run.json."""
        more = []
        if self.options["measurements"]:
            more.append(self.record.path.with_name(MEASUREMENTS))
            write_atomically(more[-1], csv_lines(row for entry in self._done() for row in entry["rows"]))
        for one in self.formats:
            if one.shared:
                more.append(self.record.path.with_name(one.shared))
                found = (entry.get("parts", {}).get(one.name, []) for entry in self._done())
                write_atomically(more[-1], one.whole([each for part in found for each in part]))
        if self.passed_over:
            kinds = [f"{count} × {kind}" for kind, count in sorted(self.passed_over.items())]
            logger.warning("passed over, as they hold no picture: %s", ", ".join(kinds))
            if not (self.names or self.refused):
                self.record.finding(self.folder, f"the inputs hold no picture: {', '.join(kinds)}")
        results = self._doubts()
        partly = len(results.get("withheld", []))
        # A shard of few files may have none; elsewhere that is an error before this.
        status, code = conclude(len(self.names), len(self.refused) + partly) if self.total else ("finished", EXIT_OK)
        outcome = Outcome(len(self.names) - self.skipped, self.skipped, len(self.refused), self.pictures, code)
        counts = {"files": outcome.done, "skipped": self.skipped, "refused": outcome.refused, "pictures": self.pictures}
        results = {**counts, **results}
        if self.passed_over:
            results["passed_over"] = dict(self.passed_over)
        self.record.write(status, chain(self._outputs(), more), results)
        return outcome

    def _doubts(self) -> dict[str, Any]:
        """Fields of run.json about the scores of all files whose results are there, also said on the terminal."""
        if "scores" not in self.options:
            return {}
        in_doubt = {entry["name"]: entry for entry in self._done() if "doubts" in entry}
        doubts = {name: entry["doubts"] for name, entry in in_doubt.items()}
        found = summary(doubts)
        for line in lines(found):
            logger.warning("%s", line)
        if not self.strict:
            return found
        for name, one in doubts.items():
            message = f"{reason(one, in_doubt[name]['frames'])}; these masks are not written (--strict)"
            self.record.finding(name, message)
        return {**found, "withheld": list(doubts)}

    def fail(self, error: BaseException) -> None:
        """Leave a run.json that says what ended the run."""
        self.record.fail(self.folder, error, self._outputs())
