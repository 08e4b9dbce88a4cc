"""What `propl predict` says of scores below their thresholds: per input, and of all inputs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from propl_monai.inference.prediction import Prediction

NAMED = 3  # files that a line on the terminal names


@dataclass
class Doubts:
    """Frames of one input, from 1, that are of no known kind, and those that do not seem to show a target, by task."""

    foreign: list[int] = field(default_factory=list)
    absent: dict[str, list[int]] = field(default_factory=dict)

    def add(self, number: int, predictions: Sequence[Prediction]) -> None:
        """Add a frame."""
        scores = [(one.task, one.scores) for one in predictions if one.scores is not None]
        if any(score.foreign for _, score in scores):
            self.foreign.append(number)
        for task, score in scores:
            if score.absent:
                self.absent.setdefault(task, []).append(number)

    def to_json(self) -> dict[str, Any]:
        """For the journal; empty where there is no doubt."""
        found: dict[str, Any] = {"foreign": self.foreign} if self.foreign else {}
        return found | ({"absent": self.absent} if self.absent else {})


def doubted(prediction: Prediction) -> bool:
    """Whether `--strict` withholds this mask."""
    return prediction.scores is not None and (prediction.scores.foreign or prediction.scores.absent)


def reason(doubts: Mapping[str, Any], frames: int) -> str:
    """Why `--strict` withheld masks of an input, for its finding."""
    parts = [f"{task} looks absent{_frames(some, frames)}" for task, some in doubts.get("absent", {}).items()]
    if doubts.get("foreign"):
        parts.insert(0, f"is of no kind that the network was trained on{_frames(doubts['foreign'], frames)}")
    return "; ".join(parts)


def _frames(some: Sequence[int], frames: int) -> str:
    return "" if frames == 1 else f" in {len(some)} of {frames} frames"


def summary(doubts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Fields of run.json: the inputs in doubt by name, each with the number of its frames.

    Args:
        doubts: of the inputs, by name; see `Doubts.to_json`.
    """
    absent: dict[str, dict[str, int]] = {}
    for name, one in doubts.items():
        for task, frames in one.get("absent", {}).items():
            absent.setdefault(task, {})[name] = len(frames)
    return {
        "foreign": {name: len(one["foreign"]) for name, one in doubts.items() if "foreign" in one},
        "absent": absent,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What the terminal says of a `summary`: counted, the first few named."""
    said = []
    if found["foreign"]:
        said.append(f"look foreign, of no kind that the network was trained on: {_counted(found['foreign'])}")
    return said + [f"{task} looks absent: {_counted(names)}" for task, names in found["absent"].items()]


def _counted(names: Mapping[str, int]) -> str:
    rest = len(names) - NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return f"{sum(names.values())} pictures, {', '.join(list(names)[:NAMED])}{more}"
