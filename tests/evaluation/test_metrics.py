"""Metrics of one case: pictures worked by hand, and a NumPy twin that shares no code with MONAI."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice

from propl_monai.errors import ProPLError
from propl_monai.evaluation.metrics import HD95_DEFINITION, case_row

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def blank(height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.zeros(height, width, dtype=torch.bool)


def square(top: int, left: int, side: int) -> torch.Tensor:
    mask = blank()
    mask[top : top + side, left : left + side] = True
    return mask


def pixels(*places: tuple[int, int]) -> torch.Tensor:
    mask = blank()
    for row, column in places:
        mask[row, column] = True
    return mask


def brute_force_hd95(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float]) -> float:
    """Definition written out: loops for the boundary, every pair of points for the distances."""

    def boundary(mask: np.ndarray) -> np.ndarray:
        found = []
        for row, column in np.argwhere(mask):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if not (0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]) or not mask[r, c]:
                    found.append((row, column))
                    break
        return np.array(found, dtype=float) * spacing

    a, b = boundary(first), boundary(second)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return float(max(np.quantile(distances.min(1), 0.95), np.quantile(distances.min(0), 0.95)))


def blob(seed: int, height: int, width: int) -> torch.Tensor:
    """An ellipse at a random place, perhaps cut by the border, with a few stray pixels."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    centre, radius = random.uniform(0, (height, width)), random.uniform(2, 9, 2)
    mask = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 <= 1
    return torch.from_numpy(mask | (random.random((height, width)) < 0.004))


def test_identical() -> None:
    row = case_row(square(5, 5, 4), square(5, 5, 4), (0.5, 0.25))
    assert (row["dice"], row["iou"], row["status"]) == (1.0, 1.0, "ok")
    assert (row["hd95_px"], row["hd95_mm"], row["hd95_grid"]) == (0.0, 0.0, 0.0)
    assert (row["reference_pixels"], row["predicted_pixels"], row["intersection_pixels"]) == (16, 16, 16)
    assert (row["height"], row["width"], row["diagonal_px"]) == (24, 32, 40.0)
    assert row["diagonal_mm"] == math.hypot(24 * 0.5, 32 * 0.25)
    assert row["spacing"] == "0.5 x 0.25"


def test_shifted_by_one_column() -> None:
    row = case_row(square(5, 6, 4), square(5, 5, 4), None)
    assert row["dice"] == 2 * 12 / 32
    assert row["iou"] == 12 / 20
    assert row["hd95_px"] == 1.0  # of 12 boundary pixels 6 lie 1 px away, the other 6 at 0
    assert (row["hd95_mm"], row["diagonal_mm"], row["spacing"]) == (None, None, None)


@pytest.mark.parametrize(("other", "millimetres"), [((7, 5), 4.0), ((5, 7), 2.0)])
def test_two_pixels_apart_with_spacing_two_by_one(other: tuple[int, int], millimetres: float) -> None:
    """Spacing is (row, column): two rows are 4 mm, two columns are 2 mm."""
    row = case_row(pixels(other), pixels((5, 5)), (2.0, 1.0))
    assert (row["hd95_px"], row["hd95_mm"]) == (2.0, millimetres)
    assert (row["status"], row["dice"], row["intersection_pixels"]) == ("ok", 0.0, 0)


@pytest.mark.parametrize(
    ("prediction", "reference", "status", "dice"),
    [
        (blank(), blank(), "both empty", 1.0),
        (blank(), square(5, 5, 4), "missed", 0.0),
        (square(5, 5, 4), blank(), "false alarm", 0.0),
    ],
)
def test_empty_masks(prediction: torch.Tensor, reference: torch.Tensor, status: str, dice: float) -> None:
    row = case_row(prediction, reference, (1.0, 1.0))
    assert (row["status"], row["dice"], row["iou"]) == (status, dice, dice)
    assert (row["hd95_px"], row["hd95_mm"], row["hd95_grid"]) == (None, None, None)
    assert row["diagonal_px"] == row["diagonal_mm"] == 40.0


def test_image_border_counts_as_boundary() -> None:
    """A 5 x 5 image full of target against its centre pixel: 4 of the 16 frame pixels are at the root of 8."""
    centre = torch.zeros(5, 5)
    centre[2, 2] = 1
    row = case_row(torch.ones(5, 5), centre, None, grid=5)
    assert row["hd95_px"] == pytest.approx(math.sqrt(8), abs=1e-6)  # position 0.95 * 15 = 14.25 of the sorted 16
    assert row["hd95_grid"] == row["hd95_px"]


def test_one_outlier_is_not_pooled_away() -> None:
    """Prediction: a line of 10 px and a pixel 10 px off. Directed: position 9.5 of 11 values = 5 px. Pooled: 0 px."""
    line = pixels(*[(8, column) for column in range(5, 15)])
    row = case_row(line | pixels((18, 5)), line, None)
    assert row["hd95_px"] == pytest.approx(5.0, abs=1e-5)
    assert np.quantile([0.0] * 20 + [10.0], 0.95) == 0.0  # the pooled reading of the same picture
    assert "not pooled" in HD95_DEFINITION


@pytest.mark.parametrize("seed", range(25))
def test_hd95_agrees_with_brute_force(seed: int) -> None:
    prediction, reference = blob(seed, 23, 31), blob(seed + 1000, 23, 31)
    row = case_row(prediction, reference, (0.7, 0.3))
    pair = prediction.numpy(), reference.numpy()
    assert row["status"] == "ok"
    assert row["hd95_px"] == pytest.approx(brute_force_hd95(*pair, (1.0, 1.0)), rel=1e-5, abs=1e-5)
    assert row["hd95_mm"] == pytest.approx(brute_force_hd95(*pair, (0.7, 0.3)), rel=1e-5, abs=1e-5)
    monai_dice = compute_dice(prediction[None, None].float(), reference[None, None].float()).item()
    assert row["dice"] == pytest.approx(monai_dice, abs=1e-6)
    assert row["iou"] == pytest.approx(row["dice"] / (2 - row["dice"]), abs=1e-12)  # type: ignore[operator]


def test_hd95_of_the_grid() -> None:
    """24 x 32 enlarged to 96 x 96: rows x 4, columns x 3; a shift of one column becomes three."""
    row = case_row(square(5, 6, 4), square(5, 5, 4), None, grid=96)
    assert row["hd95_grid"] == 3.0
    assert row["diagonal_grid"] == math.hypot(96, 96)


def test_mask_that_vanishes_on_the_grid() -> None:
    """At a third of the size only the middle row of each three is kept; row 6 is the first of its three."""
    line = torch.zeros(30, 30)
    line[6] = 1
    row = case_row(line, line, None, grid=10)
    assert (row["status"], row["hd95_px"], row["hd95_grid"]) == ("ok", 0.0, None)


@pytest.mark.parametrize(
    ("prediction", "reference", "dice", "iou"),
    [
        (blank(), blank(), 1.0, 1.0),
        (blank(), square(5, 5, 4), 2 / 18, 1 / 17),  # TP := 1, FN = 16
        (square(5, 5, 4), blank(), 2 / 18, 1 / 17),
        (square(1, 1, 2), square(9, 9, 3), 2 / 15, 1 / 14),  # no overlap, FP = 4, FN = 9
        (square(5, 6, 4), square(5, 5, 4), 0.75, 0.6),  # any overlap: as in the standard convention
    ],
)
def test_released_convention(prediction: torch.Tensor, reference: torch.Tensor, dice: float, iou: float) -> None:
    row = case_row(prediction, reference, None, convention="released")
    assert (row["dice"], row["iou"], row["convention"]) == (dice, iou, "released")
    assert row["hd95_px"] == case_row(prediction, reference, None)["hd95_px"]


@pytest.mark.parametrize("device", DEVICES)
def test_same_row_for_every_kind_of_tensor(device: str) -> None:
    prediction, reference = blob(3, 40, 50), blob(4, 40, 50)
    expected = case_row(prediction, reference, (0.2, 0.3))
    for change in (torch.Tensor.float, torch.Tensor.byte, torch.Tensor.half, lambda mask: MetaTensor(mask.float())):
        changed = case_row(change(prediction).to(device)[None], change(reference), (0.2, 0.3))
        assert changed == pytest.approx(expected, nan_ok=False)


def test_row_survives_json_and_keeps_its_inputs() -> None:
    prediction, reference = square(5, 6, 4).float(), square(5, 5, 4).float()
    row = case_row(prediction, reference, (0.5, 0.5))
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert torch.equal(prediction, square(5, 6, 4).float()) and torch.equal(reference, square(5, 5, 4).float())


def test_no_warning_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case_row(square(5, 6, 4), square(5, 5, 4), (0.5, 0.5))
        case_row(blank(), square(5, 5, 4), None)


@pytest.mark.parametrize(
    ("bad", "fact"),
    [
        (torch.full((24, 32), float("nan")), "NaN"),
        (torch.full((24, 32), float("inf")), "infinite"),
        (torch.full((24, 32), 255, dtype=torch.uint8), "255"),
        (torch.full((24, 32), 0.5), "0.5"),
        (-torch.ones(24, 32), "-1"),
        (torch.zeros(32), "(32,)"),
        (torch.zeros(2, 24, 32), "(2, 24, 32)"),
        (torch.zeros(1, 1, 24, 32), "(1, 1, 24, 32)"),
        (torch.zeros(0, 32), "(0, 32)"),
        (torch.zeros(32, 24), "(32, 24)"),
    ],
)
@pytest.mark.parametrize("side", ["prediction", "reference"])
def test_bad_masks_are_refused(bad: torch.Tensor, fact: str, side: str) -> None:
    pair = (bad, blank()) if side == "prediction" else (blank(), bad)
    with pytest.raises(ProPLError) as caught:
        case_row(*pair, None, where="breast/7.png")
    assert fact in caught.value.fact and side in str(caught.value)
    assert str(caught.value).startswith("breast/7.png")


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (1.0, float("nan")), (1.0,), (1.0, 1.0, 1.0)])
def test_bad_spacing_is_refused(spacing: tuple[float, float]) -> None:
    with pytest.raises(ProPLError, match="pixel spacing"):
        case_row(blank(), blank(), spacing)


def test_unknown_convention_and_grid_are_refused() -> None:
    with pytest.raises(ProPLError, match="did you mean 'released'"):
        case_row(blank(), blank(), None, convention="release")  # type: ignore[arg-type]
    with pytest.raises(ProPLError, match="grid of 0"):
        case_row(blank(), blank(), None, grid=0)
