"""Strategies by name: what each needs to know of a picture, and the order that it makes of that. NumPy alone, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from propl_monai.errors import unknown

Places = NDArray[np.intp]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Found:
    """What is known of N pictures without labels, and of L with.

    Attributes:
        uncertainty: (N,), `Prediction.relative_uncertainty`, 0 or more.
        features: (N, C), pooled, see `encoder.Features.pooled`.
        labelled: (L, C), those of pictures that have their label already; L may be 0.
        draws: (N,), in [0, 1), by chance.
    """

    uncertainty: Numbers
    features: Numbers
    labelled: Numbers
    draws: Numbers


Order = Callable[[Found, int], tuple[Places, Numbers]]


@dataclass(frozen=True)
class Strategy:
    """One way to choose.

    Attributes:
        name: on the command line.
        title: what comes first.
        uncertainty_of: "views" or "dropout", see `Predictor`; None where no uncertainty is needed.
        features: whether pooled features are needed.
        order: of the first K pictures, their places (K,) and scores (K,), which never increase.
    """

    name: str
    title: str
    uncertainty_of: str | None
    features: bool
    order: Order

    @property
    def looks(self) -> bool:
        """Whether the network has to see the pictures."""
        return self.features or self.uncertainty_of is not None


def by_uncertainty(found: Found, count: int) -> tuple[Places, Numbers]:
    """Highest relative uncertainty first."""
    return _highest(found.uncertainty, count)


def by_chance(found: Found, count: int) -> tuple[Places, Numbers]:
    """In an order that looks at nothing."""
    return _highest(found.draws, count)


def by_distance(found: Found, count: int) -> tuple[Places, Numbers]:
    """The farthest from all that is labelled or chosen before: the greedy k-centre of Sener and Savarese (ICLR 2018, alg. 1).

    Distances are Euclidean between features of unit variance. Without labelled pictures the one nearest to the mean comes
    first, with the score of the next.
    """
    points, centres = _scaled(found)
    first = int(np.linalg.norm(points - points.mean(0), axis=1).argmin())
    return _farthest(points, centres, np.ones(len(points)), first, count)


def by_both(found: Found, count: int) -> tuple[Places, Numbers]:
    """The same with distances times relative uncertainty, so that doubtful pictures that look alike do not come together.

    Without labelled pictures the most uncertain one comes first.
    """
    points, centres = _scaled(found)
    return _farthest(points, centres, found.uncertainty, int(found.uncertainty.argmax()), count)


STRATEGIES = {
    one.name: one
    for one in (
        Strategy("uncertainty-views", "views of the picture disagree most", "views", False, by_uncertainty),
        Strategy("uncertainty-dropout", "passes with dropout disagree most", "dropout", False, by_uncertainty),
        Strategy("diversity", "looks least like what is labelled or chosen before", None, True, by_distance),
        Strategy("uncertainty-diversity", "views disagree, and it looks unlike those before", "views", True, by_both),
        Strategy("random", "by chance, to compare with", None, False, by_chance),
    )
}


def find_strategy(name: str) -> Strategy:
    """The strategy of a name."""
    if name not in STRATEGIES:
        raise unknown("--strategy", "strategy", name, STRATEGIES)
    return STRATEGIES[name]


def _highest(scores: Numbers, count: int) -> tuple[Places, Numbers]:
    places = np.argsort(-scores, kind="stable")[:count]
    return places, scores[places]


def _farthest(points: Numbers, centres: Numbers, weight: Numbers, first: int, count: int) -> tuple[Places, Numbers]:
    """Greedy: each time the point whose weight times distance to the nearest centre is largest, which then is a centre."""
    nearest = np.full(len(points), np.inf)
    for centre in centres:
        nearest = np.minimum(nearest, np.linalg.norm(points - centre, axis=1))
    places: list[int] = []
    scores: list[float] = []
    while len(places) < min(count, len(points)):
        if places or len(centres):
            left = nearest * weight
            left[places] = -1.0
            place = int(left.argmax())
            scores.append(float(left[place]))
        else:
            place = first
        places.append(place)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[place], axis=1))
    if len(scores) < len(places):  # the first is far from nothing
        scores.insert(0, scores[0] if scores else 0.0)
    return np.array(places, np.intp), np.array(scores)


def _scaled(found: Found) -> tuple[Numbers, Numbers]:
    """Features of pictures without and with labels, each of zero mean and unit variance over all of them."""
    together = np.concatenate([found.features, found.labelled])
    spread = together.std(0)
    scaled = (together - together.mean(0)) / np.where(spread > 1e-6, spread, 1.0)
    return scaled[: len(found.features)], scaled[len(found.features) :]
