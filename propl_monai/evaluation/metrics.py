"""One case -> one row of numbers. Never averages: `propl_monai.evaluation.summary` does, and counts what it averages over.

The only module that imports `monai.metrics`. Dice and IoU come from integer pixel counts, which are exact at any size.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, get_args

import monai
import torch
from monai.metrics import compute_hausdorff_distance
from monai.utils import convert_to_tensor
from torch import Tensor

from propl_monai.common.spacing import require_spacing
from propl_monai.errors import ProPLError, unknown

Convention = Literal["standard", "released"]
# Whether the prediction and the reference hold any pixel.
STATUS_OF = {(True, True): "ok", (False, True): "missed", (True, False): "false alarm", (False, False): "both empty"}

HD95_DEFINITION = (
    "HD95: the larger of the two directed 95th percentiles (linear interpolation) of the Euclidean distances from "
    "each boundary pixel of one mask to the nearest boundary pixel of the other; the two sets are not pooled. Boundary: "
    "mask pixels with a 4-neighbour outside the mask or outside the image. Computed by "
    f"monai.metrics.compute_hausdorff_distance(percentile=95, directed=False), MONAI {monai.__version__}."
)


def case_row(
    prediction: Tensor,
    reference: Tensor,
    spacing_mm: tuple[float, float] | None,
    grid: int = 224,
    convention: Convention = "standard",
    where: object = "case",
) -> dict[str, float | int | str | None]:
    """Compare one predicted mask with its reference.

    Dice and IoU follow `convention`. "standard": both empty = 1, one of them empty = 0. "released": the rule of the
    authors' code, TP := 1 whenever TP = 0 (FP and FN stay), so that both empty = 1 and a full miss of n pixels has the
    Dice 2 / (2 + n) rather than 0. HD95 (see `HD95_DEFINITION`) is the same in both, and None unless both masks are
    non-empty: MONAI gives NaN or inf there and its mean drops NaN, which would reward a missed lesion. The status says
    what happened instead.

    Args:
        prediction: (H, W) or (1, H, W), bool or values in {0, 1}, at the original resolution, on any device.
        reference: like `prediction`. Both are compared on the CPU, so that no figure depends on the device.
        spacing_mm: height and width of a pixel (row, column) in mm; None when unknown.
        grid: side in pixels of the square to which both masks are resized (nearest neighbour) for `hd95_grid`,
            the figure to set beside those of the paper (224 x 224).
        convention: the rule for Dice and IoU of empty masks.
        where: name of the case in error messages.

    Returns:
        Plain floats, ints, str or None, fit for JSON: dice and iou in [0, 1]; status "ok" (both non-empty, whether or
        not they overlap), "missed" (prediction empty), "false alarm" (reference empty) or "both empty"; the pixel
        counts reference_pixels, predicted_pixels, intersection_pixels; height, width, diagonal_px; hd95_px in pixels;
        spacing "row x column" in mm; hd95_mm and diagonal_mm, None when the spacing is unknown; hd95_grid in pixels of
        the grid, None also when a mask is so thin that it vanishes there; diagonal_grid; convention.
    """
    if convention not in get_args(Convention):
        raise unknown(where, "metric convention", convention, get_args(Convention))
    if grid < 1:
        raise ProPLError(where, f"metric grid of {grid} pixels", "give a whole number from 1")
    spacing = require_spacing(spacing_mm, f"{where}, pixel spacing")
    predicted = _checked_mask(prediction, f"{where}, prediction")
    expected = _checked_mask(reference, f"{where}, reference")
    if predicted.shape != expected.shape:
        fact = f"prediction is {tuple(predicted.shape)}, reference is {tuple(expected.shape)} (rows, columns)"
        raise ProPLError(where, fact, "bring the prediction back to the size of the original image")

    n_predicted, n_reference, n_both = (int(each.sum()) for each in (predicted, expected, predicted & expected))
    dice, iou = overlap(n_both, n_predicted + n_reference - 2 * n_both, convention)
    height, width = predicted.shape
    return {
        "dice": dice,
        "iou": iou,
        "status": STATUS_OF[bool(n_predicted), bool(n_reference)],
        "reference_pixels": n_reference,
        "predicted_pixels": n_predicted,
        "intersection_pixels": n_both,
        "height": height,
        "width": width,
        "diagonal_px": math.hypot(height, width),
        "hd95_px": _hd95(predicted, expected),
        "spacing": f"{spacing[0]} x {spacing[1]}" if spacing else None,
        "hd95_mm": _hd95(predicted, expected, spacing) if spacing else None,
        "diagonal_mm": math.hypot(height * spacing[0], width * spacing[1]) if spacing else None,
        "hd95_grid": _hd95(_to_grid(predicted, grid), _to_grid(expected, grid)),
        "diagonal_grid": math.hypot(grid, grid),
        "convention": convention,
    }


def _checked_mask(mask: Tensor, where: str) -> Tensor:
    """The mask as a plain bool tensor (H, W) on the CPU.

    On a GPU, MONAI would measure distances by a transform of the whole picture, and that on the CPU unless cuCIM is there.
    """
    plain = convert_to_tensor(mask, track_meta=False)
    if plain.ndim == 3 and plain.shape[0] == 1:
        plain = plain[0]
    if plain.ndim != 2 or plain.numel() == 0:
        fact = f"shape {tuple(mask.shape)}"
        raise ProPLError(where, fact, "give one mask of shape (H, W) or (1, H, W) with at least one pixel")
    plain = plain.cpu()
    if plain.dtype == torch.bool:
        return plain
    if not bool(torch.isfinite(plain).all()):
        raise ProPLError(where, "values that are NaN or infinite", "find the step that made them before it is scored")
    if not bool(((plain == 0) | (plain == 1)).all()):
        fact = f"values from {plain.min().item():g} to {plain.max().item():g} that are not only 0 and 1"
        raise ProPLError(where, fact, "threshold it first (logits > 0, 8-bit masks > 127)")
    return plain.bool()


def overlap(true_positive: int, wrong: int, convention: Convention) -> tuple[float, float]:
    """Dice and IoU from pixel counts; `wrong` is FP + FN, `convention` that of `case_row`."""
    if true_positive == 0 and convention == "released":
        true_positive = 1
    if true_positive == 0 and wrong == 0:
        return 1.0, 1.0
    return 2 * true_positive / (2 * true_positive + wrong), true_positive / (true_positive + wrong)


def _to_grid(mask: Tensor, grid: int) -> Tensor:
    """A bool mask (H, W) resized to (grid, grid) by nearest neighbour between pixel centres."""
    # "nearest-exact": plain "nearest" rounds down and so shifts the picture by up to half a pixel.
    resized = torch.nn.functional.interpolate(mask[None, None].float(), size=(grid, grid), mode="nearest-exact")
    return resized[0, 0].bool()


def _hd95(predicted: Tensor, expected: Tensor, spacing: tuple[float, float] | None = None) -> float | None:
    """`HD95_DEFINITION` of two bool masks (H, W), in pixels or in the unit of spacing (row, column); None if undefined."""
    if not (bool(predicted.any()) and bool(expected.any())):
        return None
    with warnings.catch_warnings():
        # MONAI 1.6 warns about an argument that it passes to itself.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        distance = compute_hausdorff_distance(
            predicted[None, None],
            expected[None, None],
            include_background=True,  # the only channel is the target
            percentile=95,
            directed=False,
            spacing=spacing,
        )
    return float(distance.item())
