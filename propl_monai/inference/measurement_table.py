"""measurements.csv: one row for each picture or frame, and task."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from propl_monai.inference.measurements import Measurements, measure
from propl_monai.inference.prediction import Prediction

if TYPE_CHECKING:
    from propl_monai.inference.output_folder import InputFile

MEASUREMENTS = "measurements.csv"
SCORES = ("presence", "absent", "known", "foreign")
DOUBT = "relative_uncertainty"
COLUMNS = ("name", "file", "frame", "task", "row_mm", "column_mm", *Measurements.__dataclass_fields__, *SCORES, DOUBT)


def measurement_row(file: InputFile, number: int, prediction: Prediction, withheld: bool = False) -> dict[str, Any]:
    """A row of measurements.csv: the mask of one task on the frame of a number from 1."""
    row, column = prediction.spacing_mm or (None, None)
    frame = number if file.count > 1 else None
    place = {"name": file.name, "file": file.path.name, "frame": frame, "task": prediction.task}
    found = {} if withheld else asdict(measure(prediction.mask, prediction.spacing_mm, prediction.task))
    found |= asdict(prediction.scores) if prediction.scores else {}
    found |= {DOUBT: prediction.relative_uncertainty}
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    return {**place, "row_mm": row, "column_mm": column, **rounded}


def csv_lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The lines of measurements.csv, header first, one after the other."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        yield _taken(stream)
    yield _taken(stream)


def _taken(stream: io.StringIO) -> bytes:
    """What was written to a stream, which is emptied."""
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text.encode("utf-8", "backslashreplace")  # file names may hold what is not UTF-8


def to_csv(rows: Iterable[dict[str, Any]]) -> bytes:
    """The content of measurements.csv."""
    return b"".join(csv_lines(rows))
