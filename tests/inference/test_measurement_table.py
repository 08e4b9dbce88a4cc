"""The rows of measurements.csv and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from propl_monai.inference.known import Scores
from propl_monai.inference.measurement_table import COLUMNS, csv_lines, measurement_row, to_csv
from propl_monai.inference.output_folder import InputFile
from propl_monai.inference.prediction import Prediction

FILE = InputFile(Path("in/\udcff.dcm"), "in/\udcff", "0" * 64, count=3)


def test_a_row() -> None:
    """A withheld mask has its scores and no lengths."""
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:15] = True
    scores = Scores(known=0.123456, presence=1.0, foreign=False, absent=True)
    one = Prediction("left atrium", mask, np.empty((0, 0), np.float32), None, (0.5, 0.25), scores)
    shown, hidden = (measurement_row(FILE, 2, one, withheld) for withheld in (False, True))
    assert (shown["area"], shown["unit"], shown["frame"], shown["known"]) == (6.25, "mm", 2, 0.1235)
    assert "area" not in hidden and (hidden["absent"], hidden["column_mm"]) == (True, 0.25)
    assert set(hidden) < set(shown) <= set(COLUMNS)


def test_the_file_is_written_line_by_line() -> None:
    """Also with a name that is not UTF-8, a comma, and no rows at all."""
    rows = [{"name": "a,b", "area": 1.5}, {"name": "\udcff"}]
    lines = b"".join(csv_lines(iter(rows))).decode().splitlines()
    assert lines[0] == ",".join(COLUMNS) and lines[1].startswith('"a,b",,') and lines[2].startswith("\\udcff,")
    assert to_csv(rows).decode().splitlines() == lines and to_csv([]).decode().splitlines() == lines[:1]
