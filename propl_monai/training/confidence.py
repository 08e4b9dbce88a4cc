"""What methods agree on about pseudo-labels of one sigmoid: hard labels, confidence, entropy, and ramps of a weight."""

from __future__ import annotations

import math

from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.uplc import THRESHOLD


def hard(probability: Tensor) -> Tensor:
    """Whether a probability exceeds 0.5, as 0 or 1 of its type and shape."""
    return (probability > THRESHOLD).to(probability.dtype)


def confidence(probability: Tensor) -> Tensor:
    """max(p, 1 - p), the probability of the likelier of the two classes, in [0.5, 1]; any shape."""
    return (probability - 0.5).abs() + 0.5


def confident(probability: Tensor, threshold: float) -> Tensor:
    """1 where the confidence reaches a threshold, else 0, as a weight of pixels; any shape."""
    return (confidence(probability) >= threshold).to(probability.dtype)


def check_threshold(where: str, threshold: float) -> float:
    """A threshold of the confidence: from 0.5, which every pixel reaches, to below 1."""
    if not 0.5 <= threshold < 1:
        cure = "give 0.5, so that every pixel counts, or more, but less than 1"
        raise ProPLError(f"{where} confidence", f"{threshold} is outside 0.5…1", cure)
    return threshold


def entropy(probability: Tensor) -> Tensor:
    """Of the two classes, in nats, in [0, log 2]; any shape."""
    p = probability.clamp(1e-7, 1 - 1e-7)
    return -(p * p.log() + (1 - p) * (1 - p).log())


def ramp(progress: float) -> float:
    """The Gaussian ramp-up of Tarvainen & Valpola: exp(-5) at progress 0, 1 at progress 1."""
    return math.exp(-5 * (1 - progress) ** 2)
