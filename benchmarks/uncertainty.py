"""Does the uncertainty find what is wrong? Views of the picture and dropout, side by side, on pictures with masks.

    python -m benchmarks.uncertainty DATA --datalist DATALIST [--split validation] [--weights runs/mine] [-o FILE.json]

Pixels: the area under the ROC curve (AUROC) of the standard deviation for the wrong pixels of a picture, averaged over the
pictures that have any. Cases: the AUROC of the relative uncertainty, Σ deviation / Σ probability over pixels, for the
cases whose Dice is below 0.7. Intervals are of a bootstrap over groups (patients, videos); none below 10 of them.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from scipy.stats import rankdata

from propl_monai import Predictor
from propl_monai.cli.progress import progress
from propl_monai.data.datalist import Datalist, as_items
from propl_monai.evaluation.card.recognition import auroc
from propl_monai.evaluation.metrics import case_row
from propl_monai.evaluation.summary import summarise
from propl_monai.images import read_image, read_mask
from propl_monai.inference.engines.base import UNCERTAINTIES
from propl_monai.tasks import NAMES

BAD = 0.7  # a Dice below it is a case that someone should look at


def area(scores: np.ndarray, marked: np.ndarray) -> float:
    """AUROC of scores (N,) for the marked ones, (N,) bool; ties count half; nan where all or none are marked."""
    number = int(marked.sum())
    if number in (0, marked.size):
        return float("nan")
    ranks = float(rankdata(scores)[marked].sum())
    return (ranks - number * (number + 1) / 2) / (number * (marked.size - number))


def row_of(predictors: dict[str, Predictor], item: dict[str, Any]) -> dict[str, Any]:
    """One case: its scores, and by kind of uncertainty the AUROC of its wrong pixels and the relative uncertainty."""
    picture, reference = read_image(item["image"]), read_mask(item["label"])
    names = {"case": item["case_id"], "task": item["task"], "source": item["source"], "group": item["group"]}
    row: dict[str, Any] = {}
    for kind, predictor in predictors.items():
        found = predictor.predict([picture], item["task"], uncertainty=True)[0][0]
        assert found.uncertainty is not None
        if not row:  # the mask is the same whatever the uncertainty is of
            row = names | case_row(
                torch.from_numpy(found.mask), torch.from_numpy(reference), None, where=item["case_id"]
            )
        row[f"pixels, {kind}"] = area(found.uncertainty.ravel(), (found.mask != reference).ravel())
        row[f"case, {kind}"] = found.relative_uncertainty
    return row


def tables(rows: pd.DataFrame) -> dict[str, Any]:
    """AUROC of pixels by task and over all, and of cases over all tasks, with intervals."""
    pixels: dict[str, Any] = {}
    known = rows.dropna(subset=[f"pixels, {kind}" for kind in UNCERTAINTIES])
    first, second = (known[f"pixels, {kind}"] for kind in UNCERTAINTIES)
    for name, values in (*zip(UNCERTAINTIES, (first, second), strict=True), ("difference", first - second)):
        table = summarise(known.assign(dice=values, iou=values)).set_index("task")
        pixels[name] = {
            str(task): {"n": int(line["n"]), "auroc": line["dice"], "low": line["dice_low"], "high": line["dice_high"]}
            for task, line in table.iterrows()
        }
    bad = (rows["dice"] < BAD).to_numpy()
    groups = np.array([f"{source} {group}" for source, group in zip(rows["source"], rows["group"], strict=True)])
    cases: dict[str, Any] = {"n": len(rows), "bad": int(bad.sum())}
    for kind in UNCERTAINTIES:
        scores = rows[f"case, {kind}"].to_numpy()
        cases[kind] = auroc(scores[bad], scores[~bad], list(groups[bad]), list(groups[~bad]))
        per_task = [part for _, part in rows.groupby("task") if 0 < (part["dice"] < BAD).sum() < len(part)]
        areas = [area(part[f"case, {kind}"].to_numpy(), (part["dice"] < BAD).to_numpy()) for part in per_task]
        cases[kind]["mean_of_tasks"], cases["tasks"] = float(np.mean(areas)) if areas else None, len(areas)
    return {"pixels": pixels, "cases": cases}


def text(found: dict[str, Any]) -> str:
    """The tables in Markdown."""

    def cell(values: dict[str, Any], low: str = "low", high: str = "high") -> str:
        ends = "" if values[low] is None else f" [{values[low]:.3f}, {values[high]:.3f}]"
        return f"{values['auroc']:.3f}{ends}"

    lines = ["| task | pictures | views | dropout | views − dropout |", "|---|---:|---:|---:|---:|"]
    parts = [found["pixels"][name] for name in (*UNCERTAINTIES, "difference")]
    for task in [name for name in (*NAMES, "mean") if name in parts[0]]:
        lines.append(f"| {task} | {parts[0][task]['n']} | " + " | ".join(cell(part[task]) for part in parts) + " |")
    cases = found["cases"]
    lines += ["", f"Cases with a Dice below {BAD}: {cases['bad']} of {cases['n']}."]
    for kind in UNCERTAINTIES:
        mean = cases[kind]["mean_of_tasks"]
        within = "" if mean is None else f"; mean over {cases['tasks']} tasks, each alone: {mean:.3f}"
        if cases[kind]["auroc"] is not None:
            lines.append(f"AUROC of {kind}: {cell(cases[kind], 'auroc_low', 'auroc_high')}{within}")
    return "\n".join(lines)


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    datalist: Annotated[Path, typer.Option(help="Of the images.")],
    split: Annotated[str, typer.Option(help="validation to choose, test to report.")] = "validation",
    weights: Annotated[Path | None, typer.Option(help="Default: the package's own.")] = None,
    every: Annotated[int, typer.Option(help="Take each N-th case of a task alone.")] = 1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file of all figures.")] = None,
) -> None:
    """Measure both kinds of uncertainty and print the tables."""
    kinds: dict[str, Predictor] = {}
    for kind in UNCERTAINTIES:
        options: dict[str, Any] = {"engine": "torch", "uncertainty_of": kind}
        kinds[kind] = Predictor.from_bundle(weights, **options) if weights else Predictor(**options)
    held = Datalist.read(datalist, data)
    labelled = [case for case in held.cases if case.mask and case.split == split and case.task in NAMES]
    by_task = [[case for case in labelled if case.task == name][::every] for name in NAMES]
    items = as_items([case for some in by_task for case in some], held.root)
    done = count(1)
    with progress("measuring") as shown:
        rows = []
        for item in items:
            rows.append(row_of(kinds, item))
            shown(next(done), len(items))
    found = {"split": split, "every": every, **tables(pd.DataFrame(rows))}
    typer.echo(text(found))
    if output:
        output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
