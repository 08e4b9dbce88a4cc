"""Tables of the user or of a download as rows of text: CSV with commas."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from propl_monai.common.files import require_file
from propl_monai.common.spacing import positive
from propl_monai.errors import ProPLError


def read_table(path: Path, columns: Sequence[str], cure: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a CSV file row by row.

    Args:
        path: the file; UTF-8, its first line names the columns.
        columns: that must be there.
        cure: where it is not such a table.

    Yields:
        File and line, for messages, and the fields by column, stripped; a missing field is empty.
    """
    require_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise ProPLError(path, f"has no column '{column}'", cure)
            for row in reader:
                fields = {name: (value or "").strip() for name, value in row.items() if name and isinstance(value, str)}
                yield f"{path}, line {reader.line_num}", dict.fromkeys(columns, "") | fields
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProPLError(path, f"cannot be read as CSV ({error})", cure) from error


def positive_number(text: str) -> float | None:
    """The number that a text holds, such as a size in mm; None where it holds no finite one above 0."""
    try:
        return positive(float(text))
    except ValueError:
        return None
