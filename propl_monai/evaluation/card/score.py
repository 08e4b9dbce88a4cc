"""One pass of the network over pictures with masks: a row per case, the calibration, and head circumferences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from propl_monai.evaluation.card.measures import agreement, published_circumferences
from propl_monai.evaluation.metrics import case_row
from propl_monai.evaluation.report.collect import Calibration, CalibrationCounts, Item, predict_items
from propl_monai.inference.measurements import measure
from propl_monai.inference.predictor import Predictor
from propl_monai.tasks import NAMES

Step = Callable[[], None]  # called after each picture


@dataclass(frozen=True, eq=False)
class Scored:
    """What a pass gave.

    Attributes:
        cases: one row per case, see `metrics.case_row`, with case, task, source and group.
        calibration: with the temperature that was given, None where there was none.
        circumference: for "predicted" and "reference" masks the `measures.agreement` with published circumferences.
    """

    cases: pd.DataFrame
    calibration: Calibration
    circumference: Mapping[str, Mapping[str, Any]]


def score(
    predictor: Predictor, items: Sequence[Item], measured_on: str, temperature: float | None, fitted: int, step: Step
) -> Scored:
    """Predict every item and compare it with its mask.

    Args:
        predictor: with the decoder that its weights chose.
        items: of `datalist.as_items`, each with a label.
        measured_on: what they are, in words.
        temperature: fitted on other pictures; None to measure the calibration as it is.
        fitted: number of these pictures.
        step: called after each picture.
    """
    published = published_circumferences(items)
    rows: list[dict[str, Any]] = []
    counts = CalibrationCounts(temperature)
    lengths: dict[str, list[tuple[float, float]]] = {"predicted": [], "reference": []}
    for item, _, logits, reference in predict_items(predictor, items):
        task, case, mask = item["task"], item["case_id"], logits > 0
        height, width = item["pixel_spacing_mm"]
        spacing = (height, width) if height and width else None
        row = case_row(torch.from_numpy(mask), torch.from_numpy(reference), spacing, where=case)
        rows.append({"case": case, "task": task, "source": item["source"], "group": item["group"], **row})
        counts.add(task, logits, reference)
        if case in published and spacing:
            for name, one in (("predicted", mask), ("reference", reference)):
                if (length := measure(one, spacing, task).head_circumference) is not None:
                    lengths[name].append((length, published[case]))
        step()
    parts = counts.of([name for name in NAMES if name in counts.plain])
    circumference = {
        name: {**agreement(*zip(*pairs, strict=True)), "of": len(published)}
        for name, pairs in lengths.items()
        if published and pairs
    }
    return Scored(pd.DataFrame(rows), Calibration(measured_on, temperature, fitted, parts), circumference)
