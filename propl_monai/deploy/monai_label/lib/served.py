"""The network of all entries: loaded once, and again when a training has written new weights."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from propl_monai.inference.predictor import Predictor
from propl_monai.model.weights import WEIGHTS, read_header
from propl_monai.tasks import Task, find

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A network, the header of its weights, and a text that changes with the weights file."""

    predictor: Predictor
    header: dict[str, Any]
    stamp: str


class Served:
    """The weights of a bundle, as the entries of the app use them.

    Args:
        folder: of the bundle; its weights are `models/model.safetensors`.

    Attributes:
        tasks: of the weights.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.models = self.folder / "models"
        self.weights = self.models / WEIGHTS
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None
        self.tasks: list[Task] = [find(name, self.weights) for name in self.loaded().predictor.tasks]

    def loaded(self) -> Loaded:
        """The network of the weights file as it is now."""
        with self._lock:
            found = self.weights.stat() if self.weights.exists() else None  # `Predictor` reports missing weights
            stamp = f"{found.st_mtime_ns}-{found.st_size}" if found else "none"
            if self._loaded is None or self._loaded.stamp != stamp:
                logger.info("loading %s", self.weights)
                predictor = Predictor.from_bundle(self.folder, engine="torch")
                self._loaded = Loaded(predictor, read_header(self.weights), stamp)
            return self._loaded

    def mask(self, image: Path | str, task: Task) -> np.ndarray:
        """The mask of one task, bool (H, W) at the size of the picture."""
        return self.loaded().predictor(image, task.name).mask

    def uncertainty(self, image: Path | str, task: Task) -> float:
        """UPLC's variance (eq. 4) over views of the picture, averaged over its pixels, in [0, 0.25]."""
        deviation = self.loaded().predictor(image, task.name, uncertainty=True).uncertainty
        assert deviation is not None
        return float(np.square(deviation, dtype=np.float64).mean())
