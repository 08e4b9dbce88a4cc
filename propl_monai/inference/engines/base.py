"""The contract between `Predictor` and what runs the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

NAMES = ("auto", "torch", "onnx")
PASSES, PERTURBATION, STRENGTH, SEED = (
    8,
    "element",
    0.3,
    0,
)  # of dropout's uncertainty, as in the bundle's inference.json
UNCERTAINTIES = ("views", "dropout")  # what the passes differ in, the default first


class Engine(Protocol):
    """Three steps from a picture to probabilities; threads may share an engine.

    Attributes:
        name: "torch" or "onnx".
        device: where it computes, such as "cpu"; `str` gives its name.
    """

    name: str
    device: Any

    def prepare(self, grey: np.ndarray) -> Any:
        """Grey levels uint8 (H, W) to what `maps` takes: (1, rows, columns) on the network's grid, normalised."""

    def answer(self, images: Sequence[Any], tasks: list[str], uncertainty: bool) -> tuple[Any, np.ndarray | None]:
        """A batch through the network, each picture encoded once.

        Returns:
            (B, K, rows, columns) logits of K tasks, followed by K variances where uncertainty is wanted, on the CPU; and
            pooled features (B, C), see `encoder.Features.pooled`, None where they would depend on the task.
        """

    def finish(self, maps: Any, size: tuple[int, int], count: int) -> tuple[Any, Any]:
        """Maps (K or 2K, rows, columns) of a picture to its height and width.

        Args:
            maps: of one picture.
            size: of the picture.
            count: K.

        Returns:
            Probabilities (K, H, W), and variances (K, H, W) or None.
        """

    def masks(self, maps: Any, size: tuple[int, int], count: int, threshold: float) -> np.ndarray:
        """Where the probabilities of `finish` exceed a threshold, bool (K, H, W), for callers that want no more.

        Args:
            maps, size, count: as in `finish`.
            threshold: between 0 and 1.
        """
