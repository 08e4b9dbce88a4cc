"""Is a picture of a kind that the network was trained on, and does it show the target? NumPy alone, no torch.

Both answers come from one vector per picture, the encoder's pooled features. A linear map makes the spread of the training
pictures within a kind (pictures of one organ from one source) the same in all directions; then the squared distance to the
mean of a kind is that of Mahalanobis (Lee et al., A simple unified framework for detecting out-of-distribution samples,
NeurIPS 2018). `known` compares the distance to the nearest kind with those of validation pictures; `presence` is a logistic
function of how much nearer the task's organ is than all others, relative to both distances: a picture that is far from
everything, as those of another hospital, says little about its organ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.errors import ProPLError, first_line
from propl_monai.tasks import find

FORMAT = "propl-known/1"
LARGEST = 700.0  # log-odds whose exponential is still finite
FIT_AGAIN = "fit it again with `propl known`, or delete it: prediction then goes on without these scores"
AND = ", "  # between the organs of a kind whose pictures show several
ARRAYS = ("centre", "whitening", "means", "distances", "logistic")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What is said of one picture and one task.

    Attributes:
        known: in (0, 1], the share of validation pictures that lie as far from all kinds or farther.
        presence: in [0, 1], the probability that the picture shows the organ of the target, where pictures that do and
            that do not are equally frequent.
        foreign: `known` is below the rate of false alarms.
        absent: `presence` is below its threshold, one for all tasks.
    """

    known: float
    presence: float
    foreign: bool
    absent: bool


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers that were fitted to some weights. C features of a picture, D whitened ones, K kinds.

    Attributes:
        about: header of the file: weights_sha256, kinds (organs and source), tasks, rate of false alarms, and more.
        centre: (C,), subtracted from the features.
        whitening: (C, D), multiplied with them.
        means: (K, D) of the whitened features of each kind.
        distances: (N,) squared distances of validation pictures to the nearest kind, ascending.
        logistic: slope and offset of the log-odds of `presence`, and the log-odds below which a target is absent.
        sha256: of the file; "" for what was not read from one.
    """

    about: Mapping[str, Any]
    centre: Values
    whitening: Values
    means: Values
    distances: Values
    logistic: tuple[float, float, float]
    sha256: str = ""

    @property
    def rate(self) -> float:
        """The share of validation pictures that each warning may be false for, and with it the threshold of `known`."""
        return float(self.about["rate"])

    @property
    def tasks(self) -> list[str]:
        """The tasks that `presence` is known for."""
        return list(self.about["tasks"])

    def require(self, tasks: Sequence[str]) -> None:
        """Check that all tasks have a presence."""
        if lacking := [task for task in tasks if task not in self.tasks]:
            raise ProPLError(KNOWN, f"knows nothing of {', '.join(lacking)}", FIT_AGAIN)

    def to_kinds(self, features: NDArray[Any]) -> Values:
        """Squared distances of pictures to each kind: pooled features (B, C) to (B, K)."""
        if features.shape[1] != len(self.centre):
            fact = f"is for {len(self.centre)} features, the network has {features.shape[1]}"
            raise ProPLError(KNOWN, fact, FIT_AGAIN)
        return squared_distances((np.asarray(features, np.float64) - self.centre) @ self.whitening, self.means)

    def knowns(self, distances: Values) -> Values:
        """`Scores.known` of pictures, (B,), from their distances (B, K)."""
        return np.array([tail(self.distances, row.min()) for row in distances])

    def log_odds(self, distances: Values, task: str) -> Values:
        """The log-odds of `Scores.presence` of pictures for one task, (B,), from their distances (B, K)."""
        slope, offset, _ = self.logistic
        return slope * margins(distances, own_kinds(self.about["kinds"], task)) + offset

    def scores(self, features: NDArray[Any], tasks: Sequence[str]) -> list[Scores]:
        """The scores of one picture, one per task.

        Args:
            features: pooled features of the picture, (C,).
            tasks: names.
        """
        distances = self.to_kinds(features[None])
        known = float(self.knowns(distances)[0])
        found = []
        for task in tasks:
            value = float(self.log_odds(distances, task)[0])
            presence = 1 / (1 + math.exp(-min(max(value, -LARGEST), LARGEST)))
            found.append(Scores(known, presence, known < self.rate, value < self.logistic[2]))
        return found

    def write(self, path: Path) -> None:
        """Write the file that `read_known` reads."""
        arrays = {
            "centre": self.centre,
            "whitening": self.whitening,
            "means": self.means,
            "distances": self.distances,
            "logistic": np.array(self.logistic),
        }
        about = {**self.about, "format": FORMAT}
        tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
        write_atomically(path, save(tensors, {"propl": json.dumps(about, sort_keys=True)}))


def squared_distances(points: Values, means: Values) -> Values:
    """Of points (B, D) to means (K, D): (B, K)."""
    return np.stack([((points - mean) ** 2).sum(1) for mean in means], axis=1)


def own_kinds(kinds: Sequence[Sequence[str]], task: str) -> NDArray[np.bool_]:
    """Which kinds, pairs of organs and source, show the organ of a task: (K,)."""
    return np.array([find(task).organ in organs.split(AND) for organs, _ in kinds])


def margins(distances: Values, own: NDArray[np.bool_]) -> Values:
    """How much nearer the own kinds are than all others, (B,) in [-1, 1]: the difference of the squares by their sum."""
    near, far = distances[:, own].min(1), distances[:, ~own].min(1)
    return (far - near) / np.maximum(far + near, np.finfo(np.float64).tiny)


def tail(ascending: Values, value: float) -> float:
    """The share of values that are at least this large, the value itself counted among them, in (0, 1].

    Beyond the largest, where nothing is left to count, the share falls with the distance, so that it still ranks.
    """
    count = len(ascending)
    beyond = count - int(np.searchsorted(ascending, value, side="left"))
    share = (beyond + 1) / (count + 1)
    return share if beyond else share * float(ascending[-1] / value)


def read_known(weights: Path, weights_sha256: str) -> Known | None:
    """The numbers beside weights, checked; None where there are none.

    Args:
        weights: the weights file.
        weights_sha256: its hash, which must be the one that the numbers were fitted to.
    """
    path = weights.with_name(KNOWN)
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="numpy") as opened:
            about = json.loads((opened.metadata() or {})["propl"])
            arrays = {name: opened.get_tensor(name).astype(np.float64) for name in ARRAYS}
        known = _assembled(about, arrays, file_sha256(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError, ProPLError) as error:
        raise ProPLError(path, f"is no sound file of scores ({first_line(error)})", FIT_AGAIN) from error
    if about["weights_sha256"] != weights_sha256:
        fact = f"was fitted to weights with sha256 {about['weights_sha256']}, not {weights_sha256}"
        raise ProPLError(path, fact, FIT_AGAIN)
    return known


def _assembled(about: Any, arrays: Mapping[str, Values], sha256: str) -> Known:
    """Check that header and arrays fit each other; ValueError where they do not."""
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}, {FORMAT} is wanted")
    kinds, tasks = about["kinds"], about["tasks"]
    channels, width = arrays["whitening"].shape
    expected = {"centre": (channels,), "means": (len(kinds), width), "logistic": (3,)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is {arrays[name].shape}, not {shape}")
    if not all(np.isfinite(value).all() for value in arrays.values()):
        raise ValueError("it holds NaN or infinity")
    if not all(0 < own_kinds(kinds, task).sum() < len(kinds) for task in tasks):
        raise ValueError("its kinds and tasks do not fit each other")
    if not 0 < float(about["rate"]) < 1 or arrays["distances"].ndim != 1 or not len(arrays["distances"]):
        raise ValueError("its rate or its distances make no sense")
    slope, offset, threshold = (float(value) for value in arrays["logistic"])
    centre, whitening, means, usual = (arrays[name] for name in ("centre", "whitening", "means", "distances"))
    return Known(about, centre, whitening, means, usual, (slope, offset, threshold), sha256)
