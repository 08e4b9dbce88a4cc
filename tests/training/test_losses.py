"""BCE + Dice of small pictures, worked by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from propl_monai.training.losses import BCEDiceLoss

# Probabilities 1/2, 3/4, 1/4, 1/2.
LOGITS = torch.tensor([[0.0, log(3)], [-log(3), 0.0]]).reshape(1, 1, 2, 2)
TARGET = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).reshape(1, 1, 2, 2)


def loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return BCEDiceLoss()(logits, target, weight)


def picture(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 2, 2)


def test_hard_target_by_hand() -> None:
    entropy = (log(2) + log(4 / 3) + log(4 / 3) + log(2)) / 4
    dice = 1 - (2 * 1.25 + 1) / (2 + 2 + 1)  # overlap 1/2 + 3/4, areas 2 and 2, smoothing 1
    assert loss(LOGITS, TARGET).item() == pytest.approx(entropy + dice, abs=1e-6)
    assert entropy + dice == pytest.approx(0.790415, abs=1e-6)


def test_soft_target_by_hand() -> None:
    torn = -(log(3 / 4) + log(1 / 4)) / 2  # target 1/2 where the probability is 3/4, or 1/4
    entropy = (log(2) + torn + torn + log(2)) / 4
    dice = 1 - (2 * 1 + 1) / (2 + 2 + 1)
    assert loss(LOGITS, picture(0.5, 0.5, 0.5, 0.5)).item() == pytest.approx(entropy + dice, abs=1e-6)


def test_weights_by_hand() -> None:
    entropy = (1.0 * log(2) + 0.5 * log(4 / 3) + 0.0 + 0.0) / 4
    overlap, areas = 1.0 * 0.5 + 0.5 * 0.75, 1.0 * (0.5 + 1) + 0.5 * (0.75 + 1)
    dice = 1 - (2 * overlap + 1) / (areas + 1)
    assert loss(LOGITS, TARGET, picture(1, 0.5, 0, 0)).item() == pytest.approx(entropy + dice, abs=1e-6)


def test_each_image_has_its_own_dice() -> None:
    batch, targets = torch.cat([LOGITS, -LOGITS]), torch.cat([TARGET, TARGET])
    alone = (loss(LOGITS, TARGET) + loss(-LOGITS, TARGET)) / 2
    torch.testing.assert_close(loss(batch, targets), alone)
    pooled = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, batch=True)(batch, targets)
    assert (loss(batch, targets) - functional.binary_cross_entropy_with_logits(batch, targets) - pooled).abs() > 1e-3


def test_equals_monais_dice_and_torchs_entropy_without_weights() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 1, 8, 9), torch.rand(3, 1, 8, 9)
    dice = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target)
    torch.testing.assert_close(loss(logits, target), functional.binary_cross_entropy_with_logits(logits, target) + dice)


def test_weight_one_equals_no_weight() -> None:
    torch.testing.assert_close(loss(LOGITS, TARGET, torch.ones_like(TARGET)), loss(LOGITS, TARGET), rtol=0, atol=0)


def test_pixels_of_weight_zero_do_not_matter_at_all() -> None:
    weight = picture(1, 1, 0, 1)
    changed, other = LOGITS.clone(), TARGET.clone()
    changed[..., 1, 0], other[..., 1, 0] = 9.0, 1.0
    assert loss(changed, other, weight) == loss(LOGITS, TARGET, weight)
    logits = LOGITS.clone().requires_grad_()
    loss(logits, TARGET, weight).backward()
    assert logits.grad is not None
    assert logits.grad[..., 1, 0] == 0 and (logits.grad != 0).sum() == 3


@pytest.mark.parametrize("weight", [1.0, 0.8, 0.3])
def test_a_perfect_prediction_costs_nothing_whatever_the_weights(weight: float) -> None:
    logits = (TARGET - 0.5) * 100
    assert loss(logits, TARGET, torch.full_like(TARGET, weight)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("target", [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)], ids=["empty", "full"])
@pytest.mark.parametrize("level", [-40.0, 0.0, 40.0])
def test_empty_and_full_masks_have_finite_loss_and_gradient(target: Tensor, level: float) -> None:
    logits = torch.full_like(target, level, requires_grad=True)
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    assert value.isfinite() and logits.grad.isfinite().all()
    if level == 0:  # an empty mask still pushes every probability down, a full one up
        assert (logits.grad.sign() == (1 if target.sum() == 0 else -1)).all()


def test_bfloat16_logits_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 1, 64, 64).bfloat16(), (torch.rand(2, 1, 64, 64) > 0.5).bfloat16()
    value = loss(logits, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits.float(), target.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(logits, target), value)


def test_gradient_against_finite_differences() -> None:
    # gradcheck wants float64 and the loss computes in float32: a central difference by hand.
    torch.manual_seed(0)
    logits, target, weight = torch.randn(1, 1, 3, 3), torch.rand(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    logits.requires_grad_()
    loss(logits, target, weight).backward()
    assert logits.grad is not None
    step = torch.zeros_like(logits)
    step[0, 0, 1, 2] = 1e-2
    with torch.no_grad():
        slope = (loss(logits + step, target, weight) - loss(logits - step, target, weight)) / 2e-2
    assert logits.grad[0, 0, 1, 2].item() == pytest.approx(slope.item(), abs=1e-4)


def test_weights_of_images() -> None:
    torch.manual_seed(0)
    logits, target, weight = torch.randn(3, 1, 4, 4), torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    each = [loss(logits[n : n + 1], target[n : n + 1], weight[n : n + 1]) for n in range(3)]
    factors = torch.tensor([0.5, 0.0, 1.0])
    torch.testing.assert_close(BCEDiceLoss()(logits, target, weight, factors), (0.5 * each[0] + each[2]) / 3)
    torch.testing.assert_close(BCEDiceLoss()(logits, target, weight, torch.ones(3)), loss(logits, target, weight))
