"""What a clinician would compare: head circumferences in mm, areas of the left ventricle, and how masks fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from propl_monai.common.files import stem
from propl_monai.datasets.sources.table import positive_number, read_table
from propl_monai.errors import ProPLError
from propl_monai.inference.measurements import HEAD

MANIFEST, PUBLISHED = "manifest.csv", "hc_mm"  # the table beside the images of a source, and its column
VENTRICLE = "left ventricle"
FAILED = 0.7  # Dice below which a case counts as a failure
LARGER = 1.5  # times the area of the reference, or its inverse, from which a mask counts as too large, or too small
KINDS = ("missed", "elsewhere", "too small", "too large", "other shape or place", "false alarm")


def published_circumferences(items: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Published head circumferences in mm by case id, from the column `hc_mm` of the manifest.csv beside the images.

    Args:
        items: of `datalist.as_items`; those of other tasks count as nothing.
    """
    tables: dict[Path, dict[str, float]] = {}
    found = {}
    for item in items:
        if item["task"] != HEAD:
            continue
        image = Path(item["image"])
        manifest = image.parent.parent / MANIFEST
        if manifest not in tables:
            tables[manifest] = _read(manifest) if manifest.is_file() else {}
        if stem(image.name) in tables[manifest]:
            found[item["case_id"]] = tables[manifest][stem(image.name)]
    return found


def _read(manifest: Path) -> dict[str, float]:
    cure = f"give the circumferences in mm in the column {PUBLISHED}"
    rows = {}
    for where, row in read_table(manifest, ["name"], cure, [PUBLISHED]):
        if row[PUBLISHED]:
            value = positive_number(row[PUBLISHED])
            if value is None:
                raise ProPLError(where, f"has {PUBLISHED} '{row[PUBLISHED]}'", cure)
            rows[stem(row["name"])] = value
    return rows


def agreement(measured: Sequence[float], published: Sequence[float]) -> dict[str, Any]:
    """How measured lengths differ from published ones, in the unit of both.

    Returns:
        n; mean and median absolute error; mean absolute error in percent of the published length; bias, its standard
        deviation, and the 95 % limits of agreement (Bland and Altman, Lancet 1986), None for fewer than two cases.
    """
    first, second = np.asarray(measured, float), np.asarray(published, float)
    if not len(first):
        return {"n": 0}
    difference = first - second
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else None
    bias = float(difference.mean())
    return {
        "n": len(difference),
        "mean_absolute": float(np.abs(difference).mean()),
        "median_absolute": float(np.median(np.abs(difference))),
        "mean_absolute_percent": float((100 * np.abs(difference) / second).mean()),
        "bias": bias,
        "sd": spread,
        "limits": None if spread is None else [bias - 1.96 * spread, bias + 1.96 * spread],
    }


def ventricle_areas(cases: pd.DataFrame) -> dict[str, Any]:
    """Areas of the predicted left ventricle in percent of the reference's, over cases whose reference holds a pixel.

    Args:
        cases: rows of `metrics.case_row` with their task; an area is all pixels of a mask.

    Returns:
        n; mean, sd (None for one case), median, the 2.5th and the 97.5th percentile; 100 is equal, 0 a miss.
    """
    rows = cases[(cases["task"] == VENTRICLE) & (cases["reference_pixels"] > 0)]
    shares = 100 * rows["predicted_pixels"].to_numpy(float) / rows["reference_pixels"].to_numpy(float)
    if not len(shares):
        return {"n": 0}
    low, high = np.percentile(shares, [2.5, 97.5])
    return {
        "n": len(shares),
        "mean": float(shares.mean()),
        "sd": float(shares.std(ddof=1)) if len(shares) > 1 else None,
        "median": float(np.median(shares)),
        "low": float(low),
        "high": float(high),
    }


def kind_of_failure(row: Mapping[str, Any]) -> str | None:
    """One of `KINDS`, by the pixels of both masks; None where Dice is `FAILED` or more."""
    if row["dice"] >= FAILED:
        return None
    if not row["reference_pixels"]:
        return "false alarm"
    if not row["predicted_pixels"]:
        return "missed"
    if not row["intersection_pixels"]:
        return "elsewhere"
    ratio = row["predicted_pixels"] / row["reference_pixels"]
    return "too large" if ratio >= LARGER else "too small" if ratio <= 1 / LARGER else "other shape or place"


def failures(cases: pd.DataFrame, shown: int = 3) -> list[dict[str, Any]]:
    """For each task its cases, how many failed, by kind, and the worst of them by name.

    Args:
        cases: see `ventricle_areas`.
        shown: how many to name.
    """
    found = []
    for task, part in cases.groupby("task", sort=False):
        kinds = [kind_of_failure(row) for row in part.to_dict("records")]
        named = part.assign(kind=kinds).dropna(subset="kind").sort_values(["dice", "case"])[:shown]
        worst = [{"case": row.case, "dice": float(row.dice), "kind": row.kind} for row in named.itertuples()]
        counts = {kind: kinds.count(kind) for kind in KINDS}
        found.append({"task": task, "n": len(part), "failed": sum(counts.values()), **counts, "worst": worst})
    return found
