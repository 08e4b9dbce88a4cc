"""The tables of a comparison: 1-3 (methods), 4-6 (prompting and UPLC) and all controls, as Markdown, CSV and HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai import tasks
from propl_monai.common.files import write_atomically
from propl_monai.evaluation.cases import STATUSES
from propl_monai.evaluation.lab import paper, render
from propl_monai.evaluation.lab.comparison import SEEDS_FOR_P, Cell, Comparison
from propl_monai.evaluation.lab.goals import goals_table
from propl_monai.evaluation.lab.render import Table
from propl_monai.evaluation.lab.statistics import SURE, holm, seed_spread
from propl_monai.evaluation.lab.variants import (
    ABLATION,
    CONTROLS_AT,
    FRACTIONS,
    METHOD_ROWS,
    fraction_of,
    in_order,
    variants,
)
from propl_monai.evaluation.summary import MIN_GROUPS

ENDS = ("", "_low", "_high")  # of a score: itself and its interval


def make_tables(comparisons: Mapping[str, Comparison], out: Path | str) -> list[Path]:
    """Write every table of some runs; rows that have not been run say so.

    For each budget `<out>/<budget>/tables.md`, `tables.html`, and one CSV per table: `table-1.csv` to `table-6.csv`,
    `controls.csv`, `goals.csv` where `goals_table` gives one, and `differences.csv` with the paired differences task by
    task. Runs on external data have a folder of their own, `<out>/<budget>-without-…`, with `external-1-8.csv` in place
    of the tables.

    Args:
        comparisons: from `comparison.read_comparisons`.
        out: folder; made, and files of these names replaced.

    Returns:
        The files written.
    """
    written = []
    for home, comparison in comparisons.items():
        tables = all_tables(comparison)
        heading, notes = f"Comparison, budget {comparison.budget}", common_notes(comparison)
        heading += f", external data {', '.join(comparison.leave_out)}" if comparison.leave_out else ""
        texts = {f"{table.name}.csv": pd.DataFrame(table.rows).to_csv(index=False) for table in tables}
        texts["differences.csv"] = task_differences(comparison).to_csv(index=False)
        texts["tables.md"] = render.markdown(heading, tables, notes)
        texts["tables.html"] = render.html(heading, tables, notes)
        for name, text in texts.items():
            path = Path(out) / home / name
            write_atomically(path, text.encode())
            written.append(path)
    return written


def all_tables(comparison: Comparison) -> list[Table]:
    """Goals, Tables 1-6 and the controls of one budget; of external data one table per fraction, of the rows run."""
    if comparison.leave_out:
        title = f"External data {', '.join(comparison.leave_out)}, {{}} of the labels"
        found = [_table(comparison, None, title.format(one), one, comparison.names) for one in comparison.fractions]
        names = [f"external-{fraction.replace('/', '-')}" for fraction in comparison.fractions]
        return [replace(table, name=name) for table, name in zip(found, names, strict=True)]
    tables = [goals] if (goals := goals_table(comparison)) else []
    for first, words, rows in ((1, "Methods", METHOD_ROWS), (4, "Prompts and UPLC", tuple(ABLATION.values()))):
        for number, fraction in enumerate(FRACTIONS, start=first):
            title = f"Table {number}. {words} with {fraction} of the labels"
            more = _others(comparison, fraction, rows) if first == 1 and fraction != CONTROLS_AT else ()
            tables.append(_table(comparison, number, title, fraction, (*rows, *more)))
    every = in_order([*variants(), *comparison.names])
    title = f"All methods and controls with {CONTROLS_AT} of the labels"
    tables.append(_table(comparison, None, title, CONTROLS_AT, every))
    return tables


def _others(comparison: Comparison, fraction: str, rows: Sequence[str]) -> list[str]:
    """Every other row that has been run at a fraction, which no table of all controls shows."""
    return in_order(name for name, at in comparison.cells if at == fraction and name not in rows)


def task_differences(comparison: Comparison) -> pd.DataFrame:
    """Paired differences of the Dice, one line per row, fraction and task; p corrected over all lines of a fraction."""
    lines: list[dict[str, Any]] = []
    for fraction in comparison.fractions:
        part: list[dict[str, Any]] = []
        for name in comparison.names:
            if (found := comparison.difference(name, fraction)) is None:
                continue
            about = {"variant": name, "against": comparison.against, "labelled_fraction": fraction}
            for task, p in found.task_p.items():
                numbers = {key: found.table.loc[task, key] for key in ("groups", "dice", "dice_low", "dice_high")}
                part.append(about | {"task": task, "seeds": len(found.seeds)} | numbers | {"p": p})
        corrected = holm([line["p"] for line in part])
        lines += [line | {"p_holm": p} for line, p in zip(part, corrected, strict=True)]
    columns = ["variant", "against", "labelled_fraction", "task", "seeds", "groups", "dice", "dice_low", "dice_high"]
    return pd.DataFrame(lines, columns=[*columns, "p", "p_holm"])


def common_notes(comparison: Comparison) -> list[str]:
    """What a reader of any of the tables must know."""
    apart = [fraction for fraction in comparison.fractions if fraction not in FRACTIONS]
    external = f"external data {', '.join(comparison.leave_out)}, of which neither training nor validation saw anything"
    tested = external if comparison.leave_out else f"split {comparison.split}"
    notes = [
        f"Datalist {comparison.datalist[:12]}, {tested}, preset {comparison.preset}, budget "
        f"{comparison.budget}{_training(comparison)}. The epoch of each run was chosen on the validation split, and where "
        "a row has several decoders the one that predicts.",
        "Dice and IoU: mean over the images of a task, in percent; mDice and mIoU: mean over tasks, each weighing the "
        "same. One mask empty: 0; both empty: 1. With several seeds, each image counts with its mean over them.",
        f"[ ]: 95 % interval of a bootstrap over groups ({comparison.resamples} resamples), which are patients or "
        f"videos; tasks that share patients are drawn together; none below {MIN_GROUPS} groups, and then none of mDice: "
        "the mean over the other tasks, which have one, stands beside it. An interval tells what other "
        "patients of these sources would change, not what another training would: that is the ± over seeds, a "
        "standard deviation. With one seed, a small difference may be the luck of one training, whatever its interval.",
        "Difference: against the row that is named, in points, paired by image and seed over the seeds that both have; "
        "their number stands behind it where the row has more. p: sign-flip permutation test over groups of the "
        "difference that has an interval (smallest 0.0001), corrected for the rows with a p in the table (Holm: it "
        "bounds the chance of even one false claim and allows rows that share what they are set against). It is about "
        "patients, for these trainings; so it is given only where a row shares at least "
        f"{SEEDS_FOR_P} seeds with the other, or stands on the very same training.",
        "Variance: of UPLC's passes, mean over pixels of the unlabelled images in the last epoch, 0.25 at most; UPLC "
        "multiplies a pseudo-label by exp(-variance), so that a variance near 0 changes nothing.",
        "HD95: on masks resized to 224 × 224, in pixels of that grid, mean over tasks. Hits: images where both masks "
        "are non-empty. All: a missed target or a false alarm counts as the image diagonal, both empty as 0.",
        "Missed, false alarm and both empty count images over all seeds. Seconds, memory (peak of the training process) "
        "and images seen are means over seeds; a control at test time shows those of the training it stands on. Seconds are "
        "of the clock, whatever else the machine did meanwhile.",
    ]
    if comparison.leave_out:
        return notes
    notes += [f"In no table, but in differences.csv: runs at {', '.join(apart)} of the labels."] if apart else []
    return [*notes, f"Figures of the paper: {paper.data()['source']}. Not comparable with ours: {paper.reason()}."]


def _training(comparison: Comparison) -> str:
    """How the rows were trained where they all were trained alike, for a note."""
    recipes = [run.recipe for cell in comparison.cells.values() for run in cell.runs if run.recipe]
    words = []
    for key, phrase in (("encoder", "encoder {}"), ("spatial_size", "images of {} pixels"), ("precision", "{}")):
        found = {json.dumps(recipe.get(key)): recipe.get(key) for recipe in recipes}
        if len(found) == 1 and (value := next(iter(found.values()))):
            words.append(phrase.format(" x ".join(map(str, value)) if isinstance(value, list) else value))
    steps = {run.steps for cell in comparison.cells.values() for run in cell.runs}
    words += [f"{steps.pop():,} steps"] if len(steps) == 1 and None not in steps else []
    return f" ({', '.join(words)}; one model for all tasks where a row does not say otherwise)" if words else ""


def _table(comparison: Comparison, number: int | None, title: str, fraction: str, names: Sequence[str]) -> Table:
    rows = [_row(comparison, name, fraction) for name in names]
    corrected = holm([row.get("p") for row in rows])
    rows = [row | {"p_holm": p} if "p" in row else row for row, p in zip(rows, corrected, strict=True)]
    notes = [*_notes(comparison, rows, fraction), *(paper.about(number)["remarks"] if number else [])]
    if number:
        rows += [_paper_row(row, fraction) for row in paper.paper_rows(number)]
    return Table(f"table-{number}" if number else "controls", title, rows, render.grids(rows), notes)


def _row(comparison: Comparison, name: str, fraction: str) -> dict[str, Any]:
    """A row of ours as numbers."""
    own = fraction_of(name, fraction)
    cell = comparison.cell(name, fraction)
    if cell is None:
        title = variants()[name].title if name in variants() else name
        return {"origin": "not run", "variant": name, "title": title, "labelled_fraction": own}
    mean = cell.scores.loc["mean"]
    row: dict[str, Any] = {"origin": "run", "variant": name, "title": cell.runs[0].title, "labelled_fraction": own}
    row |= {"n": int(mean["n"]) // cell.seeds, "groups": mean["groups"], "seeds": cell.seeds}
    row |= {
        "seed_spread": seed_spread(cell.runs),
        "decoder": ", ".join(dict.fromkeys(run.decoder for run in cell.runs)),
    }
    row |= {"variance": cell.mean("variance")}
    row |= {key: mean[key] for key in (status.replace(" ", "_") for status in STATUSES)}
    row |= _scores(cell) | {f"hd95_grid_{kind}": mean[f"hd95_grid_{kind}"] for kind in ("hits", "all")}
    row |= {"tasks": len(cell.tasks), "sure_tasks": len(cell.sure_tasks)}
    row |= {f"sure_mdice{end}": cell.scores.loc[SURE, "dice" + end] for end in ENDS}
    row |= _difference(comparison, name, fraction)
    row |= {f"images_{kind}": cell.images(kind) for kind in ("labelled", "unlabelled")}
    costs = ("seconds_training", "seconds_evaluation", "peak_memory_mb", "parameters")
    row |= {key: cell.mean(key) for key in costs} | {"comparable": "yes", "remark": None}
    commits = dict.fromkeys(run.commit or "unknown" for run in cell.runs)
    return row | {"commits": " ".join(commits), "runs": " ".join(run.path.as_posix() for run in cell.runs)}


def _scores(cell: Cell) -> dict[str, Any]:
    """Dice and IoU with their intervals and pooled Dice: of each task under its code; mdice, miou and mpooled."""
    found: dict[str, Any] = {}
    for score in ("dice", "iou"):
        for task in tasks.TASKS:
            if task.name in cell.scores.index:
                ends = {end: cell.scores.loc[task.name, score + end] for end in ENDS}
                found |= {f"{task.code}_{score}{end}": value for end, value in ends.items()}
        found |= {f"m{score}{end}": cell.scores.loc["mean", score + end] for end in ENDS}
    pooled = cell.scores["pooled_dice"]
    codes = {"mean": "m"} | {task.name: f"{task.code}_" for task in tasks.TASKS}
    return found | {f"{codes[name]}pooled": value for name, value in pooled.drop(SURE).items() if value is not None}


def _difference(comparison: Comparison, name: str, fraction: str) -> dict[str, Any]:
    found = comparison.difference(name, fraction)
    keys = [f"{kind}{end}" for kind in ("difference", "sure_difference") for end in ENDS]
    if found is None:
        return {"against": comparison.against} | dict.fromkeys([*keys, "p", "difference_seeds", "difference_spread"])
    values = [found.table.loc[line, "dice" + end] for line in ("mean", SURE) for end in ENDS]
    ends = dict(zip(keys, values, strict=True))
    about = {"p": found.p, "difference_seeds": len(found.seeds), "difference_spread": found.spread}
    return {"against": comparison.against} | ends | about


def _paper_row(row: paper.PaperRow, fraction: str) -> dict[str, Any]:
    line: dict[str, Any] = {"origin": "paper", "variant": row.name, "title": row.kind, "labelled_fraction": fraction}
    line |= {f"{code}_dice": value / 100 for code, value in row.dice.items()}
    line |= {f"{code}_iou": value / 100 for code, value in row.iou.items()}
    line |= {"mdice": row.mdice / 100, "miou": row.miou / 100}
    return line | {"comparable": f"no: {paper.reason()}", "remark": row.remark}


def _notes(comparison: Comparison, rows: Sequence[dict[str, Any]], fraction: str) -> list[str]:
    """What holds for this table alone."""
    notes = []
    if comparison.cell(comparison.against, fraction) is None:
        notes.append(f"No differences: {comparison.against} has not been run at {fraction}.")
    run = [row for row in rows if row["origin"] == "run"]
    seen = {row["images_labelled"] + row["images_unlabelled"] for row in run}
    if len(seen) > 1:
        few, many = min(seen), max(seen)
        notes.append(f"The rows did not see equally many images: {few} to {many} in training.")
    if len(seeds := {row["seeds"] for row in run}) > 1:
        notes.append(f"Rows of {min(seeds)} to {max(seeds)} seeds stand side by side: compare them by the difference.")
    cells = [cell for row in run if (cell := comparison.cell(row["variant"], fraction))]
    if cells and (few := [name for name in cells[0].tasks if name not in cells[0].sure_tasks]):
        notes.append(f"Without an interval, as they have fewer than {MIN_GROUPS} groups: {', '.join(few)}.")
    if other := [row["variant"] for row in run if row["labelled_fraction"] != fraction]:
        notes.append(f"Trained with all labels, not {fraction}: {', '.join(other)}.")
    return notes
