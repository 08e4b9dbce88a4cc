"""UPLC, eqs. 4-5: pictures worked by hand, a float64 NumPy twin, and what each perturbation may touch."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.uplc import (
    PERTURBATIONS,
    PSEUDO_LABELS,
    certainty,
    mean_and_variance,
    perturb,
    pseudo_label,
    rectify,
    sharpen,
)

# Two passes over four pixels: agreed background, torn, agreed foreground, torn a little above one half.
FIRST = torch.tensor([[0.0, 0.1], [0.9, 0.1]])
SECOND = torch.tensor([[0.0, 0.9], [0.9, 0.94]])
MEAN = torch.tensor([[0.0, 0.5], [0.9, 0.52]])
VARIANCE = torch.tensor([[0.0, 0.16], [0.0, 0.1764]])  # ((0.9 - 0.1) / 2)², ((0.94 - 0.1) / 2)²


def test_mean_and_population_variance_by_hand() -> None:
    mean, variance = mean_and_variance([FIRST, SECOND])
    torch.testing.assert_close(mean, MEAN)
    torch.testing.assert_close(variance, VARIANCE)


def test_three_passes_by_hand() -> None:
    mean, variance = mean_and_variance(torch.tensor([[0.2], [0.2], [0.8]]))
    torch.testing.assert_close(mean, torch.tensor([0.4]))
    torch.testing.assert_close(variance, torch.tensor([0.08]))  # (0.04 + 0.04 + 0.16) / 3


def test_largest_variance_is_a_quarter() -> None:
    _, variance = mean_and_variance([torch.zeros(1), torch.ones(1)])
    assert variance.item() == 0.25


def test_one_pass_has_no_variance_and_is_its_own_rectification() -> None:
    mean, variance = mean_and_variance([FIRST])
    assert torch.equal(mean, FIRST) and torch.equal(variance, torch.zeros(2, 2))
    for power in (1, 2):
        assert torch.equal(rectify(mean, variance, power), FIRST)


def test_no_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_and_variance([])


def test_rectify_by_hand() -> None:
    # exp(-0.16) = 0.852144, exp(-0.1764) = 0.838282; exp(-0.0256) = 0.974725, exp(-0.03111696) = 0.969362
    expected = {1: [[0.0, 0.426072], [0.9, 0.435907]], 2: [[0.0, 0.487362], [0.9, 0.504068]]}
    for power, values in expected.items():
        torch.testing.assert_close(rectify(MEAN, VARIANCE, power), torch.tensor(values), rtol=0, atol=1e-6)


def test_default_power_is_the_papers() -> None:
    assert torch.equal(rectify(MEAN, VARIANCE), rectify(MEAN, VARIANCE, 1))
    soft, _ = pseudo_label(MEAN, VARIANCE)
    assert torch.equal(soft, rectify(MEAN, VARIANCE, 1))


@pytest.mark.parametrize(
    ("kind", "power", "target", "weight"),
    [
        ("soft", 1, [[0.0, 0.426072], [0.9, 0.435907]], None),
        ("soft", 2, [[0.0, 0.487362], [0.9, 0.504068]], None),
        ("hard", 1, [[0.0, 0.0], [1.0, 0.0]], None),
        ("hard", 2, [[0.0, 0.0], [1.0, 1.0]], None),  # the weaker power leaves 0.52 above the threshold
        ("weighted", 1, [[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.852144], [1.0, 0.838282]]),
        ("weighted", 2, [[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.974725], [1.0, 0.969362]]),
    ],
)
def test_pseudo_labels_by_hand(kind: str, power: int, target: list, weight: list | None) -> None:
    found, found_weight = pseudo_label(MEAN, VARIANCE, kind, power)
    torch.testing.assert_close(found, torch.tensor(target), rtol=0, atol=1e-6)
    if weight is None:
        assert found_weight is None
    else:
        assert found_weight is not None
        torch.testing.assert_close(found_weight, torch.tensor(weight), rtol=0, atol=1e-6)


def test_uncertain_background_loses_weight_only_when_weighted() -> None:
    mean, variance = torch.tensor([0.4]), torch.tensor([0.2])
    target, weight = pseudo_label(mean, variance, "weighted")
    assert weight is not None
    assert target.item() == 0 and weight.item() == pytest.approx(math.exp(-0.2))
    assert pseudo_label(mean, variance, "hard")[1] is None


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_float64_numpy_twin(count: int) -> None:
    passes = np.random.default_rng(count).random((count, 2, 1, 4, 4))
    mean, variance = mean_and_variance(torch.from_numpy(passes))
    np.testing.assert_allclose(mean.numpy(), passes.sum(0) / count, rtol=0, atol=1e-14)
    expected = ((passes - passes.mean(0)) ** 2).sum(0) / count
    np.testing.assert_allclose(variance.numpy(), expected, rtol=0, atol=1e-14)
    for power in (1, 2):
        twin = np.exp(-(expected**power)) * passes.mean(0)
        np.testing.assert_allclose(rectify(mean, variance, power).numpy(), twin, rtol=0, atol=1e-14)


def test_float32_stays_accurate_when_the_passes_are_nearly_equal() -> None:
    # Mean of squares minus square of the mean would lose such a variance altogether.
    passes = 0.9 + 1e-4 * np.random.default_rng(0).standard_normal((5, 64))
    _, variance = mean_and_variance(torch.from_numpy(passes).float())
    np.testing.assert_allclose(variance.numpy(), passes.astype(np.float32).astype(float).var(0), rtol=1e-2)


def test_order_of_passes_does_not_matter() -> None:
    passes = torch.rand(5, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        for found, expected in zip(mean_and_variance(passes[order]), mean_and_variance(passes), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


def test_passes_are_taken_one_by_one_and_left_unchanged() -> None:
    alive: list[int] = []
    seen: list[weakref.ref] = []

    def make(value: float) -> Tensor:
        alive.append(sum(reference() is not None for reference in seen))
        made = torch.full((4, 4), value)
        seen.append(weakref.ref(made))
        return made

    def passes() -> Iterator[Tensor]:
        for number in range(8):
            yield make(number / 8)

    mean_and_variance(passes())
    assert len(alive) == 8 and max(alive) <= 1  # the one just consumed, never the N of them
    kept = FIRST.clone()
    mean_and_variance([kept, SECOND])
    assert torch.equal(kept, FIRST)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_strength_zero_is_identity(kind: str) -> None:
    v4 = torch.randn(2, 5, 3, 4)
    assert torch.equal(perturb(v4, kind, 0.0), v4)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_two_draws_differ_and_the_input_stays(kind: str) -> None:
    torch.manual_seed(0)
    v4 = torch.randn(2, 16, 4, 4)
    before = v4.clone()
    assert not torch.equal(perturb(v4, kind, 0.3), perturb(v4, kind, 0.3))
    assert torch.equal(v4, before)


def _dropped(kind: str) -> Tensor:
    torch.manual_seed(1)
    return perturb(torch.ones(4, 32, 8, 8), kind, 0.3) == 0


def test_token_drops_positions_across_all_channels() -> None:
    dropped = _dropped("token")
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0.2 < dropped[:, 0].float().mean() < 0.4
    assert not torch.equal(dropped[0], dropped[1])  # each image its own positions


def test_channel_drops_channels_at_all_positions() -> None:
    dropped = _dropped("channel")
    assert torch.equal(dropped, dropped[..., :1, :1].expand_as(dropped))
    assert 0.15 < dropped[..., 0, 0].float().mean() < 0.45
    assert not torch.equal(dropped[0], dropped[1])


def test_element_drops_neither_positions_nor_channels() -> None:
    dropped = _dropped("element")
    assert 0.28 < dropped.float().mean() < 0.32
    assert not dropped.all(dim=1).any() and not dropped.flatten(2).all(dim=2).any()


def test_gaussian_drops_nothing_and_scales_with_the_features() -> None:
    torch.manual_seed(2)
    for deviation in (1.0, 50.0):
        v4 = deviation * torch.randn(2, 64, 8, 8)
        noise = perturb(v4, "gaussian", 0.3) - v4
        assert noise.std().item() == pytest.approx(0.3 * v4.std().item(), rel=0.05)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_expectation_is_preserved(kind: str) -> None:
    torch.manual_seed(3)
    v4 = torch.full((4, 4, 2, 2), 2.0)
    v4[:, 1] = -1.0
    draws = torch.stack([perturb(v4, kind, 0.3) for _ in range(1500)]).mean(dim=(0, 1))
    torch.testing.assert_close(draws, v4[0], rtol=0, atol=0.15)


@pytest.mark.parametrize("kind", ["element", "channel", "token"])
def test_what_dropout_keeps_is_scaled_by_its_rate(kind: str) -> None:
    torch.manual_seed(4)
    kept = perturb(torch.ones(2, 8, 4, 4), kind, 0.2).unique()
    torch.testing.assert_close(kept, torch.tensor([0.0, 1.25]))


@pytest.mark.parametrize(
    ("call", "cure"),
    [
        (lambda: perturb(torch.ones(1, 1, 1, 1), "tokens"), "did you mean 'token'?"),
        (lambda: perturb(torch.ones(1, 1, 1, 1), "gausian"), "did you mean 'gaussian'?"),
        (lambda: pseudo_label(MEAN, VARIANCE, "weight"), "did you mean 'weighted'?"),
        (lambda: pseudo_label(MEAN, VARIANCE, "xyz"), "known: " + ", ".join(PSEUDO_LABELS)),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(call: Callable[[], object], cure: str) -> None:
    with pytest.raises(ProPLError) as refused:
        call()
    assert refused.value.cure == cure and refused.value.where.startswith("uplc")


def test_certainty_by_hand() -> None:
    expected = torch.tensor([[1.0, math.exp(-8)], [1.0, math.exp(-8.82)]])
    torch.testing.assert_close(certainty(VARIANCE, 0.02), expected)
    torch.testing.assert_close(certainty(VARIANCE, 1.0), torch.exp(-VARIANCE))  # the factor of eq. 5


def test_sharpen_by_hand() -> None:
    mean = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
    torch.testing.assert_close(sharpen(mean, 2), torch.tensor([0.0, 0.04 / 0.68, 0.5, 0.64 / 0.68, 1.0]))
    assert torch.equal(sharpen(mean, 1), mean)
    torch.testing.assert_close(sharpen(mean, 60), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
