"""Figures of the card that need no network, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from propl_monai.errors import ProPLError
from propl_monai.evaluation.card.measures import (
    KINDS,
    agreement,
    failures,
    kind_of_failure,
    published_circumferences,
    ventricle_areas,
)


def row(reference: int, predicted: int, both: int, **more: Any) -> dict[str, Any]:
    total = reference + predicted
    dice = 2 * both / total if total else 1.0
    counts = {"reference_pixels": reference, "predicted_pixels": predicted, "intersection_pixels": both}
    return {"dice": dice, **counts, "task": "left ventricle", "case": "LV/X/1", **more}


def test_agreement_by_hand() -> None:
    found = agreement([101.0, 98.0, 103.0], [100.0, 100.0, 100.0])
    assert found["n"] == 3 and found["mean_absolute"] == pytest.approx(2.0) and found["median_absolute"] == 2.0
    assert found["mean_absolute_percent"] == pytest.approx(2.0) and found["bias"] == pytest.approx(2 / 3)
    spread = np.std([1, -2, 3], ddof=1)
    assert found["sd"] == pytest.approx(spread)
    assert found["limits"] == pytest.approx([2 / 3 - 1.96 * spread, 2 / 3 + 1.96 * spread])
    assert agreement([], []) == {"n": 0}
    assert agreement([1.0], [2.0])["limits"] is None


def test_areas_are_percent_of_the_reference_and_a_miss_counts_as_nothing_predicted() -> None:
    cases = pd.DataFrame(
        [row(100, 90, 90), row(200, 220, 190), row(50, 0, 0), row(0, 9, 0), row(9, 9, 9, task="myocardium")]
    )
    found = ventricle_areas(cases)
    assert found["n"] == 3 and found["mean"] == pytest.approx((90 + 110 + 0) / 3) and found["median"] == 90
    assert found["low"] == pytest.approx(4.5) and found["high"] == pytest.approx(109)
    assert ventricle_areas(cases[cases["task"] == "myocardium"]) == {"n": 0}


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ((100, 100, 80), None),
        ((100, 0, 0), "missed"),
        ((0, 100, 0), "false alarm"),
        ((100, 100, 0), "elsewhere"),
        ((100, 160, 80), "too large"),
        ((100, 60, 50), "too small"),
        ((100, 100, 50), "other shape or place"),
        ((0, 0, 0), None),
    ],
)
def test_every_failure_has_one_kind(counts: tuple[int, int, int], kind: str | None) -> None:
    assert kind_of_failure(row(*counts)) == kind
    assert kind is None or kind in KINDS


def test_failures_are_counted_by_task_and_the_worst_are_named() -> None:
    cases = pd.DataFrame([row(100, 100, n, case=f"LV/X/{n}") for n in (10, 0, 30, 20, 90)])
    (found,) = failures(cases)
    assert (found["n"], found["failed"], found["elsewhere"], found["other shape or place"]) == (5, 4, 1, 3)
    assert [one["case"] for one in found["worst"]] == ["LV/X/0", "LV/X/10", "LV/X/20"]


def test_published_circumferences_come_from_the_table_beside_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "FH" / "HC18"
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("name,hc_mm\n000_HC,44.3\n001_HC,\n")
    names = ("000_HC", "001_HC", "002_HC")
    items = [{"task": "fetal head", "case_id": f"FH/{n}", "image": str(folder / "images" / f"{n}.png")} for n in names]
    assert published_circumferences(items) == {"FH/000_HC": 44.3}
    assert published_circumferences([{**items[0], "task": "left atrium"}]) == {}
    assert published_circumferences([{**items[0], "image": str(tmp_path / "BC" / "images" / "000_HC.png")}]) == {}
    (folder / "manifest.csv").write_text("name,hc_mm\n000_HC,long\n")
    with pytest.raises(ProPLError, match=r"manifest\.csv, line 2: has hc_mm 'long'; give the circumferences in mm"):
        published_circumferences(items)
