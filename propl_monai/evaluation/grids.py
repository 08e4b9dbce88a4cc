"""Tables as text: what evaluation, lab and report have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from propl_monai.errors import ProPLError

NONE = "–"


@dataclass(frozen=True)
class Grid:
    """Cells as text. The first column names the row."""

    title: str
    head: list[str]
    rows: list[list[str]]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub-flavoured Markdown; all columns but the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(escape(cell) for cell in line) + " |" for line in lines)


def escape(text: str) -> str:
    """Text that neither ends a cell of Markdown nor starts an HTML tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def number(value: float | None, scale: float = 1.0, digits: int = 1, sign: str = "") -> str:
    """A number times `scale`, rounded, or a dash for None; sign "+" shows that of a positive one too."""
    return NONE if value is None else f"{round(value * scale, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no "-0.0"


def percent(row: Mapping[Any, Any], key: str, sign: str = "") -> str:
    """A score in percent with its 95 % interval, from `key`, `key`_low and `key`_high; without where there is none."""
    mean, low, high = (number(row[key + end], 100, sign=sign) for end in ("", "_low", "_high"))
    return mean if row[key] is None or row[f"{key}_low"] is None else f"{mean} [{low}, {high}]"


def pair(row: Mapping[Any, Any], key: str) -> str:
    """The two means of an HD95, over the hits and over all images."""
    return " / ".join(number(row[f"{key}_{kind}"]) for kind in ("hits", "all"))


def fill_template(package: str, name: str, content: Mapping[str, Any], **options: Any) -> str:
    """A page from a Jinja template of a package; every text in `content` is escaped. `options` are those of Jinja."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ProPLError("jinja2", "is not installed", "pip install 'propl-monai[lab]'") from error
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, **options)
    return environment.from_string(text).render(content)
