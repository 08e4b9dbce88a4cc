"""The same hearts lying and standing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import small_predictor
from PIL import Image

from propl_monai.evaluation.card.orientation import both_positions


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    """Two tasks of a heart, and one of another organ."""
    random = np.random.default_rng(0)
    made = []
    for task in ("left atrium", "myocardium", "thyroid nodule"):
        for name in ("a", "b"):
            base = tmp_path / f"{task} {name}"
            Image.fromarray(random.integers(0, 255, (40, 60), np.uint8)).save(f"{base}.png")
            mask = np.zeros((40, 60), np.uint8)
            mask[5:20, 10:50] = 255
            Image.fromarray(mask).save(f"{base}_mask.png")
            item = {"image": f"{base}.png", "label": f"{base}_mask.png", "task": task, "source": "MADE"}
            made.append({**item, "group": name, "case_id": f"{task} {name}"})
    return made


def test_transposed_pictures_are_compared_with_transposed_masks(items: list[dict[str, Any]]) -> None:
    predictor, seen = small_predictor(), []
    whole = predictor.predict
    # a network that finds all pixels right of the tenth column in a lying picture, and below the tenth row in a standing one

    def predict(pictures: Any, tasks: Any) -> Any:
        (found,) = whole(pictures, tasks)
        lying = pictures[0].pixels.shape == (40, 60)
        mask = np.zeros_like(found[0].mask)
        mask[(5, slice(10, 50)) if lying else (slice(10, 50), slice(5, 20))] = True
        seen.append(pictures[0].pixels.shape)
        object.__setattr__(found[0], "mask", mask)
        return [found]

    predictor.predict = predict  # type: ignore[method-assign,assignment]
    steps: list[int] = []
    rows = both_positions(predictor, items, lambda: steps.append(1))
    assert [row["task"] for row in rows] == ["left atrium", "myocardium"] and len(steps) == 4
    assert seen == [(40, 60), (60, 40)] * 4
    for row in rows:
        assert (row["n"], row["groups"], row["dice_low"]) == (2, 2, None)
        assert row["dice"] == pytest.approx(2 * 40 / (40 + 600)) and row["transposed"]["dice"] == pytest.approx(1.0)


def test_no_heart_no_rows(items: list[dict[str, Any]]) -> None:
    assert both_positions(small_predictor(), items[4:], lambda: None) == []
