"""The figures that the paper itself reports, from `paper_tables.json`, and why ours cannot be set against them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper.

    Attributes:
        name: of the row, as in the paper; in Tables 4-6 its two ticks in words.
        kind: of the method, such as "single-task supervised"; empty in Tables 4-6.
        dice, iou: in percent, by the paper's two-letter codes of the tasks, which are `tasks.Task.code`.
        mdice, miou: in percent.
        remark: what sets it apart from the other rows of the paper, such as another metric; mostly empty. That no row
            can be compared with ours: see `reason`.
    """

    name: str
    kind: str
    dice: Mapping[str, float]
    iou: Mapping[str, float]
    mdice: float
    miou: float
    remark: str


@cache
def data() -> dict[str, Any]:
    """The whole file: "source", why rows cannot be compared in "not_comparable", and "tables" by number."""
    folder = resources.files("propl_monai.evaluation.lab")
    return json.loads(folder.joinpath("paper_tables.json").read_text(encoding="utf-8"))


def paper_rows(table: int) -> list[PaperRow]:
    """The rows of Table 1 to 6."""
    special = data()["not_comparable"]["rows"]
    rows = []
    for facts in about(table)["rows"]:
        own = special.get(facts["name"], {"tables": []})
        remark = own["reason"] if table in own["tables"] else ""
        numbers = {key: facts[key] for key in ("dice", "iou", "mdice", "miou")}
        rows.append(PaperRow(facts["name"], facts.get("family", ""), remark=remark, **numbers))
    return rows


def about(table: int) -> dict[str, Any]:
    """The facts of a table: labelled_fraction, such as "1/8", and remarks, a list of what the paper's text adds to it."""
    return {"remarks": [], **data()["tables"][str(table)]}


def reason() -> str:
    """Why no row of the paper can be compared with a row of ours."""
    return str(data()["not_comparable"]["all"])
