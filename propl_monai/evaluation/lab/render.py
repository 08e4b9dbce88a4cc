"""Tables of numbers -> Markdown and one self-contained HTML page. Knows no statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from propl_monai import tasks
from propl_monai.errors import ProPLError
from propl_monai.evaluation.grids import NONE, Grid

Row = Mapping[str, Any]
NOT_RUN = "not run"


@dataclass(frozen=True)
class Table:
    """Rows of one table, as numbers.

    Attributes:
        name: of its CSV file.
        title: one line.
        fraction: of the train pictures with labels.
        rows: one mapping a row, scores in [0, 1]; "origin" is "run", "not run" or "paper".
        notes: lines under the table.
    """

    name: str
    title: str
    fraction: str
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def markdown(heading: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as GitHub-flavoured Markdown."""
    parts = [f"# {heading}", _bullets(notes)]
    for table in tables:
        parts.append(f"## {table.title}")
        for grid in grids(table):
            lines = [grid.head, ["---"] + ["---:"] * (len(grid.head) - 1), *grid.rows]
            text = "\n".join("| " + " | ".join(_safe(cell) for cell in line) + " |" for line in lines)
            parts += [f"**{grid.title}**", text]
        parts.append(_bullets(table.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def html(heading: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as one page without scripts, pictures or links to other files; every text is escaped."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ProPLError("jinja2", "is not installed", "pip install 'propl-monai[lab]'") from error
    template = resources.files("propl_monai.evaluation.lab").joinpath("tables.html.jinja").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    content = [{"title": table.title, "grids": grids(table), "notes": table.notes} for table in tables]
    return page.render(heading=heading, tables=content, notes=notes) + "\n"


def grids(table: Table) -> list[Grid]:
    """One table as several narrow ones: the result first, then the tasks, the costs, and the paper's own figures."""
    ours = [row for row in table.rows if row["origin"] != "paper"]
    paper = [row for row in table.rows if row["origin"] == "paper"]
    run = [row for row in ours if row["origin"] == "run"]
    details = [_of_tasks(run, "dice"), _of_tasks(run, "iou"), _counts(run), _training(run), _costs(run)] if run else []
    return [_result(ours), *details, *([_paper(paper)] if paper else [])]


def _result(rows: Sequence[Row]) -> Grid:
    run = [row for row in rows if row["origin"] == "run"]
    against = run[0]["against"] if run else "another row"
    # Some tasks have no interval: the mean over the others is shown too.
    fewer = next((row["sure_tasks"] for row in run if row["sure_tasks"] < row["tasks"]), None)
    head = ["row", "mDice % [95 %]", *([f"mean of {fewer} tasks % [95 %]"] if fewer else []), "mIoU % [95 %]"]
    head += ["HD95 hits / all", "seeds", f"mDice against {against} [95 %]"]
    head += [*([f"{fewer} tasks against {against} [95 %]"] if fewer else []), "p (Holm)"]

    def cells(row: Row) -> list[str]:
        seeds = str(row["seeds"]) + (f" (± {row['seed_spread'] * 100:.1f})" if row["seed_spread"] is not None else "")
        distances = " / ".join(_number(row[f"hd95_grid_{kind}"]) for kind in ("hits", "all"))
        shared, spread = row["difference_seeds"], row["difference_spread"]
        paired = "" if spread is None else f" (± {spread * 100:.1f})"
        paired += f" ({shared} seed{'s' if shared > 1 else ''})" if shared and shared != row["seeds"] else ""
        scores = [_interval(row, key) for key in ("mdice", *(["sure_mdice"] if fewer else []), "miou")]
        changes = [_interval(row, key, "+") for key in ("difference", *(["sure_difference"] if fewer else []))]
        return [*scores, distances, seeds, changes[0] + paired, *changes[1:], _p(row["p_holm"])]

    return Grid("Result", head, [_line(row, cells, len(head)) for row in rows])


def _of_tasks(rows: Sequence[Row], score: str) -> Grid:
    tested = [task for task in tasks.TASKS if any(f"{task.code}_{score}" in row for row in rows)]
    head = ["row", *(task.name for task in tested)]

    def cells(row: Row) -> list[str]:
        return [_interval(row, f"{task.code}_{score}") for task in tested]

    name = {"dice": "Dice", "iou": "IoU"}[score]
    return Grid(f"{name} % [95 %] of each task", head, [_line(row, cells, len(head)) for row in rows])


def _counts(rows: Sequence[Row]) -> Grid:
    head = ["row", "images", "groups", "seeds", "both masks", "missed", "false alarms", "both empty"]

    def cells(row: Row) -> list[str]:
        keys = ("n", "groups", "seeds", "ok", "missed", "false_alarm", "both_empty")
        return [f"{row[key]:,}" for key in keys]

    return Grid("What was tested", head, [_line(row, cells, len(head)) for row in rows])


def _training(rows: Sequence[Row]) -> Grid:
    head = ["row", "images seen: labelled", "unlabelled", "variance of the passes", "decoder that predicts", "commit"]

    def cells(row: Row) -> list[str]:
        seen = [f"{row[key]:,}" for key in ("images_labelled", "images_unlabelled")]
        variance = NONE if row["variance"] is None else f"{row['variance']:.1g}"
        return [*seen, variance, row["decoder"], " ".join(commit[:7] for commit in row["commits"].split())]

    return Grid("How it was trained", head, [_line(row, cells, len(head)) for row in rows])


def _costs(rows: Sequence[Row]) -> Grid:
    head = ["row", "training s by the clock", "test s", "peak memory MB", "parameters M"]

    def cells(row: Row) -> list[str]:
        keys = ("seconds_training", "seconds_evaluation", "peak_memory_mb")
        whole = [NONE if row[key] is None else f"{row[key]:,.0f}" for key in keys]
        return [*whole, _number(row["parameters"], 1e-6)]

    return Grid("What it cost", head, [_line(row, cells, len(head)) for row in rows])


def _paper(rows: Sequence[Row]) -> Grid:
    head = ["row of the paper", *(task.name for task in tasks.TASKS), "mDice", "mIoU", "remark"]
    lines = []
    for row in rows:
        name = row["variant"] + (f" ({row['title']})" if row["title"] else "")
        codes = [*(f"{task.code}_" for task in tasks.TASKS)]
        cells = [f"{row[code + 'dice'] * 100:.2f} / {row[code + 'iou'] * 100:.2f}" for code in codes]
        lines.append([name, *cells, f"{row['mdice'] * 100:.2f}", f"{row['miou'] * 100:.2f}", row["remark"] or NONE])
    return Grid("The paper's own figures, Dice / IoU %, not comparable with the rows above", head, lines)


def _line(row: Row, cells: Any, width: int) -> list[str]:
    """The cells of a row under its name and title, or "not run" in each."""
    name = f"{row['variant']}: {row['title']}"
    return [name, *(cells(row) if row["origin"] == "run" else [NOT_RUN] * (width - 1))]


def _interval(row: Row, key: str, sign: str = "") -> str:
    """A score in percent, with its interval if there is one."""
    if row[key] is None:
        return NONE
    mean, low, high = (row[key + end] for end in ("", "_low", "_high"))
    return (
        _percent(mean, sign)
        if low is None
        else f"{_percent(mean, sign)} [{_percent(low, sign)}, {_percent(high, sign)}]"
    )


def _percent(value: float, sign: str) -> str:
    return f"{round(value * 100, 1) + 0.0:{sign}.1f}"  # + 0.0: no "-0.0"


def _number(value: float | None, scale: float = 1.0) -> str:
    return NONE if value is None else f"{value * scale:.1f}"


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_safe(line)}" for line in lines)


def _safe(text: str) -> str:
    """Text that neither ends a cell of Markdown nor starts a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
