"""A table as text: what the tables of the lab and the report have in common."""

from __future__ import annotations

from dataclasses import dataclass

NONE = "–"


@dataclass(frozen=True)
class Grid:
    """Cells as text. The first column names the row."""

    title: str
    head: list[str]
    rows: list[list[str]]
