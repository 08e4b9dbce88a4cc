"""Which cases the panels show, and what runs predict on them: from folders of `propl compare`, which keep weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai import tasks
from propl_monai.data.datalist import Datalist, as_items
from propl_monai.datasets.cohort import DATALIST
from propl_monai.errors import ProPLError
from propl_monai.evaluation.figure_style import save
from propl_monai.evaluation.lab.finished_runs import RunResult, read_run
from propl_monai.evaluation.lab.variants import trained_as
from propl_monai.evaluation.panels import Mask, Panel, best_median_worst, check_dice, draw_panels
from propl_monai.images import read_image, read_mask, to_grey
from propl_monai.inference.predictor import Predictor
from propl_monai.tasks import Task

EXAMPLE = "RUNS/short/propl/1-8/seed-0"


@dataclass(frozen=True, eq=False)
class _Row:
    """A run under the name that its row of pictures has."""

    name: str
    folder: Path
    run: RunResult

    def predictor(self, task: Task) -> Predictor:
        """With the weights that were tested; those of one model per task lie in a folder of the task."""
        own = self.folder / task.slug
        return Predictor.from_bundle(own if own.is_dir() else self.folder)


def make_panels(
    folders: Sequence[Path],
    out: Path,
    data: Path,
    task_names: Sequence[str] | None = None,
    datalist_file: Path | None = None,
) -> list[Path]:
    """Draw the best, the median and the worst case of each task, with the outlines of one run or several.

    The cases are ranked by their Dice, averaged over the runs so that none of them is favoured.

    Args:
        folders: of finished runs with their weights, as `propl compare` leaves them.
        out: folder; gets `panels-<task>.png` and `.svg`. They show pictures of patients: mind who may see them.
        data: folder of the pictures.
        task_names: names or codes; None for all that were tested.
        datalist_file: of the runs; None looks for the one that `propl compare` wrote beside them.

    Returns:
        The files written.
    """
    rows = _rows(folders)
    datalist = Datalist.read(datalist_file or _find_datalist(rows[0].folder), data)
    for row in rows:
        if row.run.datalist_sha256 != datalist.sha256:
            raise ProPLError(row.run.path, "was tested on another datalist", "name its own with --datalist")
    wanted = tasks.find_all(
        task_names or [name for name in tasks.NAMES if name in set(rows[0].run.cases["task"])], "--task"
    )
    ranked = _mean_dice(rows)
    items = {item["case_id"]: item for item in as_items(datalist.cases, datalist.root)}
    written = []
    for task in wanted:
        panels = _panels(rows, items, task, best_median_worst(ranked, task.name))
        text = f"{task.name.capitalize()}: cases chosen by rank of their Dice"
        text += ", averaged over the rows." if len(rows) > 1 else "."
        written += save(draw_panels(panels, text + " Number: Dice."), Path(out) / f"panels-{task.slug}")
    return written


def _rows(folders: Sequence[Path]) -> list[_Row]:
    """The runs, each under its variant and what distinguishes it from the others."""
    found = [(Path(folder), _finished(Path(folder))) for folder in folders]
    if not found:
        raise ProPLError("panels", "no run was given", f"name folders such as {EXAMPLE}")
    parts = [(run.variant, run.fraction, f"seed {run.seed}") for _, run in found]
    varied = [place == 0 or len(set(column)) > 1 for place, column in enumerate(zip(*parts, strict=True))]
    names = [", ".join(compress(part, varied)) for part in parts]
    if len(set(names)) < len(names):
        raise ProPLError("panels", f"two runs are called {max(names, key=names.count)}", "name each run once")
    return [_Row(name, folder, run) for name, (folder, run) in zip(names, found, strict=True)]


def _finished(folder: Path) -> RunResult:
    path = folder / "run.json"
    run = read_run(path) if path.is_file() else None
    if run is None:
        raise ProPLError(folder, "holds no finished run of `propl compare`", f"name a folder such as {EXAMPLE}")
    if (base := trained_as(run.variant)) != run.variant:
        raise ProPLError(folder, f"has no weights of its own but uses those of {base}", f"name the run of {base}")
    return run


def _find_datalist(folder: Path) -> Path:
    """The datalist of the comparison that a run's folder, RUNS/BUDGET/VARIANT/FRACTION/SEED, is in."""
    above = folder.resolve().parents
    fact = "lies in no folder such as RUNS/short/propl/1-8" if len(above) < 4 else "does not exist"
    where = folder if len(above) < 4 else above[3] / DATALIST
    if not where.is_file():
        raise ProPLError(where, fact, "name the datalist of the runs with --datalist")
    return where


def _mean_dice(rows: Sequence[_Row]) -> pd.DataFrame:
    """The Dice of each case, mean over the runs: columns task, case, dice."""
    parts = [row.run.cases[["task", "case", "dice"]] for row in rows]
    for row, part in zip(rows, parts, strict=True):
        if set(part["case"]) != set(parts[0]["case"]):
            raise ProPLError(row.run.path, f"other test cases than {rows[0].run.path}", "name runs of one comparison")
    return pd.concat(parts).groupby(["task", "case"], as_index=False)["dice"].mean()


def _panels(
    rows: Sequence[_Row], items: Mapping[str, Mapping[str, Any]], task: Task, chosen: dict[str, str]
) -> list[Panel]:
    """A column for each rank."""
    pictures = {rank: read_image(items[case]["image"]) for rank, case in chosen.items()}
    references = {rank: read_mask(items[case]["label"]) for rank, case in chosen.items()}
    masks: dict[str, dict[str, Mask]] = {rank: {} for rank in chosen}
    dice: dict[str, dict[str, float]] = {rank: {} for rank in chosen}
    for row in rows:
        predicted = row.predictor(task).predict(list(pictures.values()), task.name)
        known = dict(zip(row.run.cases["case"], row.run.cases["dice"], strict=True))
        for (rank, case), (prediction,) in zip(chosen.items(), predicted, strict=True):
            check_dice(prediction.mask, references[rank], known[case], case, row.run.path, "run it again")
            masks[rank][row.name], dice[rank][row.name] = prediction.mask, known[case]
    return [Panel(rank, to_grey(pictures[rank].pixels), references[rank], masks[rank], dice[rank]) for rank in chosen]
