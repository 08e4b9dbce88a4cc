"""The words and tables of the report, and the page they stand on. Every text is escaped; the page holds no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from propl_monai import __version__, tasks
from propl_monai.evaluation.grids import NONE, Grid, fill_template, number, pair, percent
from propl_monai.evaluation.report.charts import LOSSES, curves, decoders_of, overlay, reliability
from propl_monai.evaluation.report.collect import FITTED_ON, Calibration, Collected
from propl_monai.evaluation.report.failures import failure_grids
from propl_monai.evaluation.report.run_files import RunFiles

TEMPLATE = "report.html.jinja"


def render(files: RunFiles, collected: Collected | None = None) -> str:
    """The page.

    Args:
        files: of the run.
        collected: what needed the network; None leaves calibration and pictures out, and says so.
    """
    results = files.training_record["results"]
    content = {
        "heading": f"ProPL report: {files.training.resolve().name}",
        "version": __version__,
        "facts": _facts(files, collected),
        "warnings": _warnings(files),
        "result": _result(files.table),
        "notes": files.notes,
        "curves": curves(files.epochs, results.get("best_epoch")),
        "epochs": _epochs(files.epochs),
        "tasks": _tasks(files, collected) if collected else [],
        "has_pictures": bool(collected and collected.shown),
        "calibration": _calibration(collected.calibration) if collected else None,
        "failures": failure_grids(files.cases),
        "provenance": _provenance(files),
        "commands": [(run, " ".join(record["command"])) for run, record in files.records],
        "options": _options(files),
        "inputs": _inputs(files),
    }
    page = fill_template("propl_monai.evaluation.report", TEMPLATE, content, trim_blocks=True, lstrip_blocks=True)
    return page.strip() + "\n"


def _facts(files: RunFiles, collected: Collected | None) -> list[tuple[str, str]]:
    """The run in a few lines."""
    mean, options = files.table[-1], files.training_record["options"]
    counts = files.training_record["results"].get("cases", {})
    facts = [
        (f"Mean Dice of {len(files.table) - 1} tasks", percent(mean, "dice") + " %"),
        ("Evaluated on", f"{files.measured_on}: {mean['n']:,} pictures of {mean['groups']:,} patients or videos"),
        ("Missed targets, false alarms", f"{mean['missed']}, {mean['false_alarm']}"),
        (
            "Trained on",
            ", ".join(f"{counts[key]:,} {key}" for key in ("labelled", "unlabelled") if key in counts) or NONE,
        ),
        ("Labelled fraction, seed", f"{options.get('labelled_fraction', NONE)}, {options.get('seed', NONE)}"),
    ]
    if collected:
        error = collected.calibration.all_tasks().plain.expected_error
        facts.append(("Expected calibration error", f"{error * 100:.2f} %"))
    return facts


def _warnings(files: RunFiles) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = []
    trained, about = files.training_record, files.evaluation_record["results"].get("about", {})
    if trained["status"] != "finished":
        found.append(f"The training is not finished but {trained['status']}.")
    if about.get("same datalist as training") == "no":
        found.append("The weights were trained with another datalist: evaluated cases may have been trained on.")
    for key, kept in (("epoch", trained["results"].get("best_epoch")), ("seed", trained["options"].get("seed"))):
        if kept is not None and about.get(key) not in (None, kept):
            fact = f"The evaluated weights are of {key} {about[key]}, those that this training kept of {kept}"
            found.append(f"{fact}: evaluate again, or name the folder of the right evaluation.")
    for run, record in files.records:
        found += [f"{run}: {item['path']}: {item['message']}" for item in record.get("findings", [])]
    return found


def _result(table: Sequence[Mapping[str, Any]]) -> Grid:
    """The scores first: a phone shows three columns before one has to scroll."""
    head = ["task", "Dice, % [95 %]", "IoU, % [95 %]", "pictures", "patients or videos", "missed", "false alarms"]
    head += ["both empty", "HD95, px: hits / all", "HD95, mm: hits / all (pictures)", "HD95, grid px: hits / all"]
    rows = []
    for row in table:
        cells = [f"{row[key]:,}" for key in ("n", "groups", "missed", "false_alarm", "both_empty")]
        cells += [pair(row, "hd95_px"), f"{pair(row, 'hd95_mm')} ({row['hd95_mm_n']})", pair(row, "hd95_grid")]
        rows.append([row["task"], percent(row, "dice"), percent(row, "iou"), *cells])
    return Grid("Every evaluated case, by task", head, rows)


def _epochs(epochs: Sequence[Mapping[str, Any]]) -> Grid:
    losses = [name for name in LOSSES if any(name in epoch for epoch in epochs)]
    decoders = decoders_of(epochs)
    head = ["epoch", *losses, *(f"validation mDice of {name}, %" for name in decoders), "learning rate", "seconds"]
    rows = []
    for epoch in epochs:
        found = epoch.get("validation") or {}
        cells = [number(epoch.get(name), 1, 4) for name in losses]
        cells += [number(found.get(name), 100) for name in decoders]
        cells += [number(epoch.get("learning_rate"), 1, 6), number(epoch.get("seconds"))]
        rows.append([str(epoch["epoch"]), *cells])
    return Grid("Each epoch", head, rows)


def _tasks(files: RunFiles, collected: Collected) -> list[dict[str, Any]]:
    """Name, prompt and pictures of each task."""
    found = []
    for name in files.task_names:
        pictures = [
            {
                "source": overlay(one),
                "rank": one.rank,
                "case": one.case,
                "dice": f"{one.dice * 100:.1f}",
                "empty": not one.prediction.any(),
                "words": f"{one.rank} case of {name}, {one.case}: reference and prediction outlined on the picture",
            }
            for one in collected.shown
            if one.task == name
        ]
        task = tasks.find(name)
        prompt = collected.prompts.get(name, "")
        found.append({"name": name, "code": task.code, "prompt": prompt, "pictures": pictures})
    return found


def _calibration(calibration: Calibration) -> dict[str, Any]:
    rows = {**calibration.tasks, "all tasks as one": calibration.all_tasks()}
    drawings = [reliability("all", "All tasks as one", rows["all tasks as one"])]
    drawings += [reliability(tasks.find(name).code, name, part) for name, part in calibration.tasks.items()]
    kinds = ["ECE, %", "ACE, %"]
    if calibration.temperature is not None:
        kinds += ["ECE at T, %", "ACE at T, %"]
    lines = []
    for name, part in rows.items():
        measured = [one for one in (part.plain, part.scaled) if one is not None]
        errors = [number(error, 100, 2) for one in measured for error in (one.expected_error, one.average_error)]
        lines.append([name, *errors, f"{part.images:,}"])
    head = ["mean predicted probability, %", "share of all pixels, %", "pixels that are target, %"]
    points = [[number(p, 100), number(n, 100, 3), number(o, 100)] for n, p, o in calibration.all_tasks().plain.points()]
    return {
        "measured_on": calibration.measured_on,
        "fitted_on": FITTED_ON,
        "fitted_images": calibration.fitted_images,
        "temperature": None if calibration.temperature is None else f"{calibration.temperature:.3f}",
        "drawings": drawings,
        "grid": Grid("Calibration error", ["task", *kinds, "pictures"], lines),
        "bins": Grid("All tasks as one, as predicted: the points of the diagram", head, points),
    }


def _provenance(files: RunFiles) -> Grid:
    """What can differ between two runs of one command, side by side."""
    records = [record for _, record in files.records]
    facts: dict[str, Iterable[Any]] = {
        "status": [record["status"] for record in records],
        "started (UTC)": [record["started"] for record in records],
        **{key: [record.get(key) for record in records] for key in ("seconds", "commit")},
        "seed": [record["options"].get("seed") for record in records],
        "datalist SHA-256": [record["results"].get("datalist_sha256") for record in records],
        "device": [record["options"].get("device") for record in records],
    }
    for part in ("machine", "versions"):
        for key in dict.fromkeys(key for record in records for key in record[part]):
            facts[key] = [record[part].get(key) for record in records]
    rows = [[key, *map(_word, row)] for key, row in facts.items()]
    return Grid("The two runs", ["fact", "training", "evaluation"], rows)


def _options(files: RunFiles) -> Grid:
    chosen = [record["options"] for _, record in files.records]
    keys = sorted({key for options in chosen for key in options})
    rows = [[key, *(_word(options.get(key)) for options in chosen)] for key in keys]
    return Grid("All options", ["option", "training", "evaluation"], rows)


def _inputs(files: RunFiles) -> Grid:
    rows = [[entry["path"], run, entry["sha256"]] for run, record in files.records for entry in record["inputs"]]
    return Grid("Files that were read", ["file", "by", "SHA-256"], rows)


def _word(value: Any) -> str:
    """A JSON value in words."""
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
