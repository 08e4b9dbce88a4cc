"""What run.json and cases.csv of a comparison keep of a run: a summary of its training and its evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai.common.files import file_sha256
from propl_monai.common.run_record import read_object
from propl_monai.evaluation.cases import CASES, NUMBERS, PIXELS, read_cases
from propl_monai.evaluation.lab.finished_runs import EXTERNAL, RUN_AGAIN
from propl_monai.model.weights import WEIGHTS

RUN, MEMORY = "run.json", "memory.json"
MODELS = "models"  # folder of the weights
DIGITS = 5
COLUMNS = ["case", "task", "source", "group", "status", *NUMBERS, *PIXELS]
# Options of a training that say where or from what it started, not what was trained.
NO_RECIPE = ("dataset_dir", "resume", "allow_unverified", "device")


def results_of(train: Path, test: Path) -> dict[str, Any]:
    """The results of one part for run.json, and its "cases", a table that is written beside it.

    Args:
        train: output folder of the training; peak memory and weights lie beside it.
        test: output folder of the evaluation.
    """
    trained, tested = (read_object(folder / RUN, RUN_AGAIN) for folder in (train, test))
    memory = train.parent / MEMORY
    options, steps = trained["options"], trained["results"]["steps"]
    unlabelled = options["unlabelled_batch_size"] if trained["results"]["cases"]["unlabelled"] else 0
    return {
        "images_seen": {"labelled": steps * options["labelled_batch_size"], "unlabelled": steps * unlabelled},
        "steps": steps,
        "seconds_training": trained["results"]["seconds_of_all_epochs"],
        "seconds_evaluation": tested["seconds"],
        # None where the worker was killed before it could note it and the training ended by itself.
        "peak_memory_mb": read_object(memory, RUN_AGAIN)["peak_memory_mb"] if memory.exists() else None,
        "decoder": tested["results"]["about"]["decoder"],
        "best_epoch": trained["results"]["best_epoch"],
        "best_validation_mdice": trained["results"]["best_validation_mdice"],
        "parameters": trained["results"]["parameters"],
        "datalist_sha256": trained["results"]["datalist_sha256"],
        "split": tested["results"]["about"].get("split", EXTERNAL),
        "recipe": {key: value for key, value in options.items() if key not in NO_RECIPE},
        "commit": trained["commit"],
        "weights_sha256": [file_sha256(weights) for weights in [train.parent / MODELS / WEIGHTS] if weights.exists()],
        "curve": [_point(json.loads(line)) for line in (train / "metrics.jsonl").read_text().splitlines()],
        "cases": read_cases(test / CASES)[COLUMNS].round(DIGITS),
    }


def _point(line: dict[str, Any]) -> dict[str, Any]:
    # Not decimals: the variance of the passes may be a millionth.
    losses = {key: float(f"{line[key]:.{DIGITS}g}") for key in ("supervised", "pseudo", "uncertainty") if key in line}
    about = {key: line[key] for key in ("epoch", "iteration", "seconds")}
    return {**about, "validation": line.get("validation"), "losses": losses}


def unite(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several models, one for each task, as one row: sums of work, the largest memory, all cases."""
    if len(parts) == 1:
        return parts[0]
    first, scores = parts[0], [part["best_validation_mdice"] for part in parts]
    memory = [part["peak_memory_mb"] for part in parts]
    total = {
        key: sum(part[key] for part in parts)
        for key in ("steps", "seconds_training", "seconds_evaluation", "parameters")
    }
    return {
        **total,
        "images_seen": {key: sum(part["images_seen"][key] for part in parts) for key in first["images_seen"]},
        "peak_memory_mb": None if None in memory else max(memory),
        "decoder": ", ".join(sorted({part["decoder"] for part in parts})),
        "best_epoch": None,
        "best_validation_mdice": None if None in scores else sum(scores) / len(scores),
        "datalist_sha256": first["datalist_sha256"],
        "split": first["split"],
        "recipe": {
            key: value
            for key, value in first["recipe"].items()
            if key not in ("tasks", "steps_per_epoch") and all(part["recipe"].get(key) == value for part in parts)
        },
        "commit": first["commit"],
        "weights_sha256": [sha256 for part in parts for sha256 in part["weights_sha256"]],
        "curve": [],
        "cases": pd.concat([part["cases"] for part in parts], ignore_index=True),
    }
