"""Tables of the user or of a download as rows of text: CSV with commas, semicolons or tabs.

A column that is written in another way than expected must not be ignored, as a lost column of patients lets one patient into
two splits. So headers are compared without case, blanks and hyphens, and a header that resembles a missing column is refused.
"""

from __future__ import annotations

import csv
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from propl_monai.common.files import require_file
from propl_monai.common.spacing import positive
from propl_monai.errors import ProPLError

logger = logging.getLogger(__name__)
SEPARATORS = ",;\t|"
_ALIKE = 0.75  # of the letters of two headers
# Other words for a column, without case, blanks and signs; an ending such as "id" may follow.
_OTHER_WORDS = {
    "name": "(image|img|picture|pic|file|filename|frame|path)(file|name|path|id)?",
    "group": "(patient(en|e)?|pat|pt|subject|subj|participant|proband|person|woman|case|fall|exam|examination|study|series"
    "|video|cine|clip|accession|(hospital|record)(?=ids?|uid|no|nr|num)|mrn|nhs|pid|grp|groups?|cluster|gruppe|groupe|grupo"
    "|gruppo|sujeto?|paciente|paziente)(instance)?(ids?|uid|no|nr|num|number|name|code|key|s)?|ids?|uid",
    "pixel_size_mm": ".*spacing.*|(pixel|px|pix)(size|width|height|length|edge|mm|cm|scale)?(row|col|column|x|y|mm|cm|inmm)*"
    "|mm(per|/)?(pixel|px)|(scale|resolution)mm",
}


def read_table(
    path: Path, columns: Sequence[str], cure: str, optional: Sequence[str] = (), unread: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a table row by row; rows without any text are passed over.

    Args:
        path: the file; UTF-8, its first line names the columns.
        columns: that must be there; lower case.
        cure: where it is not such a table.
        optional: columns that may be missing, but not under another name.
        unread: more columns that the package knows; any other one that is in the table is named in a warning, if given.

    Yields:
        File and line, for messages, and the fields by column, stripped; a missing field is empty.
    """
    require_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            marked = re.fullmatch(r"sep=(.)\s*", first)  # the line that Excel writes and reads
            if not marked:
                stream.seek(0)
            separator = marked[1] if marked else max(SEPARATORS, key=first.count)
            reader = csv.reader(stream, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
            headers = _headers(path, next(reader, []), columns, optional, cure)
            spare = [header for header in headers if header and header not in (*columns, *optional, *(unread or ()))]
            if unread is not None and spare:
                logger.warning("%s: these columns are not read: %s", path, ", ".join(spare))
            for row in reader:
                fields = [field.strip() for field in row]
                where = f"{path}, line {reader.line_num + bool(marked)}"
                if any(fields[len(headers) :]):
                    fact = f"has {len(fields)} fields where the first line names {len(headers)} columns"
                    raise ProPLError(where, fact, 'put fields that hold a separator into double quotes ("a, b")')
                if any(fields):
                    yield where, dict.fromkeys((*columns, *optional), "") | dict(zip(headers, fields, strict=False))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProPLError(path, f"cannot be read as CSV ({error})", cure) from error


def _headers(path: Path, row: list[str], columns: Sequence[str], optional: Sequence[str], cure: str) -> list[str]:
    """The names of the columns, lower case; those of `columns` and `optional` in their own spelling."""
    own = {_plain(column): column for column in (*columns, *optional)}
    headers = [own.get(_plain(header), " ".join(header.split()).casefold()) for header in row]
    for column in (*columns, *optional):
        if headers.count(column) > 1:
            written = ", ".join(f"'{text.strip()}'" for text, name in zip(row, headers, strict=True) if name == column)
            raise ProPLError(path, f"has the column '{column}' twice ({written})", "keep one of them")
        near = next((header for header in row if column not in headers and _resembles(header, column)), None)
        if near is not None:
            fact = f"has no column '{column}', but one named '{near.strip()}'"
            raise ProPLError(path, fact, f"rename it to '{column}' if it is that; else rename it to something else")
        if column in columns and column not in headers:
            raise ProPLError(path, f"has no column '{column}'", cure)
    return headers


def _plain(text: str) -> str:
    """Letters, digits and signs without case, blanks, hyphens and underscores."""
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", text)).casefold()


def _resembles(header: str, column: str) -> bool:
    plain = re.sub(r"[^\w/]", "", _plain(header))
    alike = SequenceMatcher(None, plain, _plain(column)).ratio() >= _ALIKE
    return alike or re.fullmatch(_OTHER_WORDS.get(column, "(?!)"), plain) is not None


def positive_number(text: str) -> float | None:
    """The number that a text holds, such as a size in mm, also with a decimal comma; None for any other text."""
    try:
        return positive(float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text))
    except ValueError:
        return None


def two_spellings(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in case, in blanks, hyphens or underscores beside a letter, or as 012 and 12.0 do."""
    found: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        plain = re.sub(r"(?<=[^\W\d_])[\s_-]+|[\s_-]+(?=[^\W\d_])", "", plain)
        plain = re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0*$", r"\1", plain))
        known.setdefault(plain, name)
        if known[plain] != name:
            found.append((known[plain], name))
    return found
