"""Tables of numbers -> Markdown and one self-contained HTML page. Knows no statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from propl_monai import tasks
from propl_monai.evaluation.grids import NONE, Grid, escape, fill_template, markdown_table, number, pair, percent

Row = Mapping[str, Any]
Cells = Callable[[Row], list[str]]  # of a row that has been run, without its name
NOT_RUN = "not run"


@dataclass(frozen=True)
class Table:
    """Rows of one table, as numbers.

    Attributes:
        name: of its CSV file.
        title: one line.
        rows: one mapping per row, for the CSV file; scores in [0, 1].
        grids: the same as text, in several narrow tables.
        notes: lines under the table.
    """

    name: str
    title: str
    rows: list[dict[str, Any]]
    grids: list[Grid]
    notes: list[str] = field(default_factory=list)


def markdown(heading: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as GitHub-flavoured Markdown."""
    parts = [f"# {heading}", _bullets(notes)]
    for table in tables:
        parts.append(f"## {table.title}")
        for grid in table.grids:
            parts += [f"**{grid.title}**", markdown_table(grid.head, grid.rows)]
        parts.append(_bullets(table.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def html(heading: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """All tables as one page without scripts, pictures or links to other files; every text is escaped."""
    values = {"heading": heading, "tables": tables, "notes": notes}
    return fill_template("propl_monai.evaluation.lab", "tables.html.jinja", values) + "\n"


def grids(rows: Sequence[Row]) -> list[Grid]:
    """One table as several narrow ones: the result first, then the tasks, the costs, and the paper's own figures.

    Args:
        rows: of `tables`; "origin" is "run", "not run" or "paper".
    """
    ours = [row for row in rows if row["origin"] != "paper"]
    paper = [row for row in rows if row["origin"] == "paper"]
    run = [row for row in ours if row["origin"] == "run"]
    found = [_result(ours, run)]
    if run:
        found += [_of_tasks(run, "dice", "Dice"), _of_tasks(run, "iou", "IoU"), *_pooled(run)]
        found += [_grid(title, head, cells, run) for title, head, cells in DETAILS]
    return [*found, *([_paper(paper)] if paper else [])]


def _result(rows: Sequence[Row], run: Sequence[Row]) -> Grid:
    against = run[0]["against"] if run else "another row"
    # Some tasks have no interval: the mean over the others is shown too.
    fewer = next((row["sure_tasks"] for row in run if row["sure_tasks"] < row["tasks"]), None)
    head = ["mDice % [95 %]", *([f"mean of {fewer} tasks % [95 %]"] if fewer else []), "mIoU % [95 %]"]
    head += ["HD95 hits / all", "seeds", f"mDice against {against} [95 %]"]
    head += [*([f"{fewer} tasks against {against} [95 %]"] if fewer else []), "p (Holm)"]

    def cells(row: Row) -> list[str]:
        seeds = str(row["seeds"]) + (f" (± {row['seed_spread'] * 100:.1f})" if row["seed_spread"] is not None else "")
        shared, spread = row["difference_seeds"], row["difference_spread"]
        paired = "" if spread is None else f" (± {spread * 100:.1f})"
        paired += f" ({shared} seed{'s' if shared > 1 else ''})" if shared and shared != row["seeds"] else ""
        scores = [percent(row, key) for key in ("mdice", *(["sure_mdice"] if fewer else []), "miou")]
        changes = [percent(row, key, "+") for key in ("difference", *(["sure_difference"] if fewer else []))]
        return [*scores, pair(row, "hd95_grid"), seeds, changes[0] + paired, *changes[1:], _p(row["p_holm"])]

    return _grid("Result", head, cells, rows)


def _of_tasks(rows: Sequence[Row], score: str, name: str) -> Grid:
    tested = [task for task in tasks.TASKS if any(f"{task.code}_{score}" in row for row in rows)]
    head = [task.name for task in tested]
    title = f"{name} % [95 %] of each task"
    return _grid(title, head, lambda row: [percent(row, f"{task.code}_{score}") for task in tested], rows)


def _pooled(rows: Sequence[Row]) -> list[Grid]:
    """Pooled Dice, and the mean over images in brackets; nothing where no run has kept its counts of pixels."""
    codes = {task.code: task.name for task in tasks.TASKS if any(f"{task.code}_pooled" in row for row in rows)}
    keys = {**{f"{code}_pooled": f"{code}_dice" for code in codes}, "mpooled": "mdice"}

    def cells(row: Row) -> list[str]:
        return [f"{number(row.get(key), 100)} ({number(row.get(other), 100)})" for key, other in keys.items()]

    title = "Pooled Dice % of each task: all its images as one (in brackets: mean over images)"
    return [_grid(title, [*codes.values(), "mean"], cells, rows)] if codes else []


def _counts(row: Row) -> list[str]:
    return [f"{row[key]:,}" for key in ("n", "groups", "seeds", "ok", "missed", "false_alarm", "both_empty")]


def _training(row: Row) -> list[str]:
    seen = [f"{row[key]:,}" for key in ("images_labelled", "images_unlabelled")]
    variance = NONE if row["variance"] is None else f"{row['variance']:.1g}"
    return [*seen, variance, row["decoder"], " ".join(commit[:7] for commit in row["commits"].split())]


def _costs(row: Row) -> list[str]:
    keys = ("seconds_training", "seconds_evaluation", "peak_memory_mb")
    return [*(NONE if row[key] is None else f"{row[key]:,.0f}" for key in keys), number(row["parameters"], 1e-6)]


TRAINING = ["images seen: labelled", "unlabelled", "variance of the passes", "decoder that predicts", "commit"]
DETAILS: tuple[tuple[str, list[str], Cells], ...] = (
    ("What was tested", ["images", "groups", "seeds", "both masks", "missed", "false alarms", "both empty"], _counts),
    ("How it was trained", TRAINING, _training),
    ("What it cost", ["training s by the clock", "test s", "peak memory MB", "parameters M"], _costs),
)


def _paper(rows: Sequence[Row]) -> Grid:
    head = ["row of the paper", *(task.name for task in tasks.TASKS), "mDice", "mIoU", "remark"]
    lines = []
    for row in rows:
        name = row["variant"] + (f" ({row['title']})" if row["title"] else "")
        codes = [*(f"{task.code}_" for task in tasks.TASKS)]
        cells = [f"{row[code + 'dice'] * 100:.2f} / {row[code + 'iou'] * 100:.2f}" for code in codes]
        lines.append([name, *cells, f"{row['mdice'] * 100:.2f}", f"{row['miou'] * 100:.2f}", row["remark"] or NONE])
    return Grid("The paper's own figures, Dice / IoU %, not comparable with the rows above", head, lines)


def _grid(title: str, head: list[str], cells: Cells, rows: Sequence[Row]) -> Grid:
    """The cells of each row under its name and title, or "not run" in each."""
    lines = [cells(row) if row["origin"] == "run" else [NOT_RUN] * len(head) for row in rows]
    names = [f"{row['variant']}: {row['title']}" for row in rows]
    return Grid(title, ["row", *head], [[name, *line] for name, line in zip(names, lines, strict=True)])


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
