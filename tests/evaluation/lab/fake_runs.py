"""Plausible run.json files of a comparison, without training: `python tests/lab/fake_runs.py FOLDER` writes a dozen rows.

The scores are made up. They have what real ones have: cases of a patient alike, hearts shared by three tasks, missed
lesions, and the same hard cases for every row.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from propl_monai.common.run_record import RunRecord
from propl_monai.data.splits import parse_fraction
from propl_monai.evaluation.lab.variants import Run, variant
from propl_monai.tasks import TASKS

SOURCES = {
    "BC": "busi",
    "FH": "hc18",
    "LA": "camus",
    "LV": "camus",
    "MD": "camus",
    "OT": "mmotu",
    "TG": "tn3k",
    "TN": "tn3k",
}
LEVELS = {"BC": 0.70, "FH": 0.95, "LA": 0.80, "LV": 0.88, "MD": 0.76, "OT": 0.72, "TG": 0.80, "TN": 0.62}
GAINS = {
    **{"supervised": 0.0, "propl": 0.012, "propl-paper": -0.03, "propl-released": -0.01, "mean-teacher": 0.005},
    **{"supervised-all": 0.05, "prompt-learned": 0.010, "prompt-onehot": 0.011, "prompt-none": -0.18},
    **{"uplc-off": 0.006, "prompt-none-uplc-off": -0.19, "passes-1": 0.005, "passes-4": 0.014, "passes-8": 0.013},
    **{"noise-gaussian": 0.002, "dropout-token": 0.011, "decoder-sd": 0.007, "mean-teacher-cutmix": 0.02},
}
FRACTIONS = {"1/16": -0.05, "1/8": 0.0, "1/4": 0.03, "1": 0.0}
THREE_SEEDS = ("propl", "supervised")


def cases(gain: float, seed: int = 0, groups: int = 12, each: int = 2) -> dict[str, list[Any]]:
    """Columns of cases: `groups` patients a source with `each` images, the same ones whatever the row."""
    patients, run = np.random.default_rng(7), np.random.default_rng([seed, int((gain + 1) * 1e4)])
    hard = {source: patients.normal(0, 0.06, groups) for source in sorted(set(SOURCES.values()))}
    rows = []
    for task in TASKS:
        source = SOURCES[task.code]
        for group in range(groups):
            for image in range(each):
                dice = LEVELS[task.code] + gain + hard[source][group] + patients.normal(0, 0.02) + run.normal(0, 0.015)
                lost = run.random() < 0.02 or (group, image) == (3, 0)
                missed = bool(lost) and task.code in ("BC", "TN")
                dice = 0.0 if missed else round(float(np.clip(dice, 0.05, 0.99)), 5)
                distance = None if missed else round(40 * (1 - dice), 5)
                rows.append(
                    {
                        **{"case": f"{task.code}-{group}-{image}", "task": task.name, "source": source},
                        **{"group": f"patient {group}", "dice": dice, "iou": round(dice / (2 - dice), 5)},
                        **{"status": "missed" if missed else "ok", "hd95_px": distance, "hd95_mm": None},
                        **{"hd95_grid": distance, "diagonal_px": 500.0, "diagonal_grid": 316.78384},
                    }
                )
    return {name: [row[name] for row in rows] for name in rows[0]}


def results(name: str, gain: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """The results of a run in the form of the contract."""
    supervised = variant(name).method == "supervised"
    passes = {"passes-1": 1, "passes-4": 4, "passes-8": 8, "uplc-off": 1}.get(name, 2)
    seconds = 300.0 if supervised else 420.0 + 45 * passes - 30 * (name == "prompt-onehot")
    made = {
        "images_seen": {"labelled": 8000, "unlabelled": 0} if supervised else {"labelled": 4000, "unlabelled": 4000},
        **{"steps": 500, "seconds_training": seconds, "seconds_evaluation": 41.5},
        **{"peak_memory_mb": 1400.0 + (0 if supervised else 500 + 130 * passes), "parameters": 9_800_000},
        **{"decoder": "sd" if supervised else "pd", "best_epoch": 5, "best_validation_mdice": 0.77 + gain},
        **{"datalist_sha256": "a" * 64, "split": "test", "commit": "c" * 40},
        "recipe": {"encoder": "tf_efficientnet_lite0", "spatial_size": [128, 128], "precision": "fp32"},
        "curve": [
            {
                **{"epoch": epoch, "iteration": 100 * epoch, "seconds": seconds / 5},
                "validation": dict.fromkeys(("sd", "pd", "mean"), 0.78 + gain - 0.35 * 0.45**epoch + 0.004 * seed),
                "losses": {"supervised": 1 / epoch} | ({} if supervised else {"uncertainty": 1e-4 / epoch}),
            }
            for epoch in range(1, 6)
        ],
        "cases": cases(gain, seed),
    }
    return made | changes


def write_run(
    folder: Path, name: str, fraction: str = "1/8", seed: int = 0, budget: str = "short", **changes: Any
) -> Path:
    """One run.json; `changes` go into its results, "options" into its options, and "status" is that of the file."""
    row = variant(name)
    external = changes.get("options", {}).get("leave_out", [])
    run = Run(row, parse_fraction(fraction), seed, budget, tuple(external))
    options = {
        **{"variant": name, "title": row.title, "base": row.method, "overrides": {**row.train, **row.evaluate}},
        **{"labelled_fraction": fraction, "seed": seed, "budget": budget, "leave_out": [], "preset": "compact"},
    } | changes.pop("options", {})
    path = folder / run.folder / "run.json"
    status = changes.pop("status", "finished")
    record = RunRecord(path, changes.pop("verb", "compare"), options)
    made = results(name, GAINS.get(name, 0.0) + FRACTIONS[fraction], seed, **changes)
    table = write_cases(path, made.pop("cases"))
    record.write(status, results=made | {"cases_sha256": table})
    return path


def write_cases(path: Path, columns: Mapping[str, Sequence[Any]]) -> str:
    """The table beside a run.json; its SHA-256."""
    text = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("cases.csv").write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def write_grid(folder: Path) -> None:
    """Every row of `GAINS` at 1/8, three seeds of two of them, and some rows at the other fractions."""
    for name in GAINS:
        for seed in range(3 if name in THREE_SEEDS else 1):
            write_run(folder, name, "1" if name == "supervised-all" else "1/8", seed)
    for fraction in ("1/16", "1/4"):
        for name in ("supervised", "propl", "mean-teacher"):
            write_run(folder, name, fraction)


if __name__ == "__main__":
    write_grid(Path(sys.argv[1]))
    print(json.dumps(sorted(GAINS)))
