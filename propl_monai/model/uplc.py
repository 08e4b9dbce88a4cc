"""Uncertainty-driven pseudo-label calibration (ProPL, "UPLC", eqs. 4-5): pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from propl_monai.errors import unknown

PERTURBATIONS = ("element", "channel", "token", "gaussian")
PSEUDO_LABELS = ("soft", "hard", "weighted")
THRESHOLD = 0.5


def perturb(
    v4: Tensor, kind: str = "element", strength: float = 0.3, generator: torch.Generator | None = None
) -> Tensor:
    """One stochastic perturbation of the deepest features.

    Args:
        v4: (B, C, h, w).
        kind: what dropout drops: single elements, whole channels, or whole tokens (spatial positions, what the
            released code's Dropout2d does to its (B, hw, C) layout); or "gaussian" noise. The paper says only
            "dropout (rate 0.3)", so "element" is the default.
        strength: dropout rate in [0, 1), or the noise's standard deviation as a share of that of v4.
        generator: of the random numbers, on the device of v4; None for torch's own.
    """
    if kind == "gaussian":
        return v4 + strength * v4.std() * torch.empty_like(v4).normal_(generator=generator)
    dropped = {"element": v4, "channel": v4[:, :, :1, :1], "token": v4[:, :1]}
    if kind not in dropped:
        raise unknown("uplc perturbation", "perturbation", kind, PERTURBATIONS)
    kept = torch.empty_like(dropped[kind]).bernoulli_(1 - strength, generator=generator)
    return v4 * kept.div_(1 - strength)


def stochastic_passes(
    decode: Callable[[Tensor], Tensor],
    v4: Tensor,
    count: int,
    kind: str = "element",
    strength: float = 0.3,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Probabilities of N passes, each with its own perturbation, made one at a time.

    Args:
        decode: v4 (B, C, h, w) to logits (B, 1, H, W).
        v4: the deepest features.
        count: N.
        kind, strength, generator: see `perturb`.

    Yields:
        float32 (B, 1, H, W) in [0, 1].
    """
    for _ in range(count):
        yield decode(perturb(v4, kind, strength, generator)).float().sigmoid()


def mean_and_variance(passes: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population variance over N passes, eq. 4, in one sweep (Welford), so that memory is flat in N.

    Args:
        passes: N ≥ 1 tensors of one shape, probabilities in [0, 1].

    Returns:
        mean in [0, 1] and variance in [0, 0.25], each of that shape; the variance of one pass is 0.

    Raises:
        ValueError: no pass at all.
    """
    mean = squares = None
    count = 0
    for count, probability in enumerate(passes, start=1):
        if mean is None or squares is None:
            mean, squares = probability.clone(), torch.zeros_like(probability)
        else:
            step = probability - mean
            mean = mean + step / count
            squares = squares + step * (probability - mean)
    if mean is None or squares is None:
        raise ValueError("UPLC needs at least one stochastic pass (N ≥ 1)")
    return mean, squares / count


def rectify(mean: Tensor, variance: Tensor, power: int = 1) -> Tensor:
    """exp(-variance**p) * mean, eq. 5; p = 1 in the paper, 2 in the released code."""
    return torch.exp(-(variance**power)) * mean


def certainty(variance: Tensor, temperature: float = 0.02) -> Tensor:
    """exp(-variance / temperature), in (0, 1]: the factor of eq. 5 with a scale, as a weight of pixels.

    Args:
        variance: γ of eq. 4, in [0, 0.25], any shape.
        temperature: the variance at which a pixel counts 1/e.
    """
    return torch.exp(-variance / temperature)


def sharpen(mean: Tensor, power: float = 1.0) -> Tensor:
    """m^s / (m^s + (1 - m)^s), between the soft label (s = 1) and the hard one (s → ∞).

    Args:
        mean: m, probabilities in [0, 1], any shape.
        power: s ≥ 1.
    """
    if power == 1:
        return mean
    target = mean**power
    return target / (target + (1 - mean) ** power)


def pseudo_label(mean: Tensor, variance: Tensor, kind: str = "soft", power: int = 1) -> tuple[Tensor, Tensor | None]:
    """Target and pixel weight for decoder pd.

    Args:
        mean: μ of eq. 4, any shape.
        variance: γ of eq. 4, that shape.
        kind: "soft", the rectified probability itself (paper); "hard", whether it exceeds 0.5 (released code);
            "weighted", whether the *mean* exceeds 0.5, each pixel weighted by exp(-γ**p), so that uncertain
            background loses weight as uncertain foreground does.
        power: p of `rectify`.

    Returns:
        target in [0, 1], and weight in (0, 1] or None where every pixel counts the same.
    """
    if kind == "soft":
        return rectify(mean, variance, power), None
    if kind == "hard":
        return (rectify(mean, variance, power) > THRESHOLD).to(mean.dtype), None
    if kind == "weighted":
        return (mean > THRESHOLD).to(mean.dtype), torch.exp(-(variance**power))
    raise unknown("uplc pseudo_label", "pseudo-label", kind, PSEUDO_LABELS)
