"""The order that each strategy makes, on points that a hand can follow."""

from __future__ import annotations

import numpy as np
import pytest

from propl_monai.errors import ProPLError
from propl_monai.inference.ranking.strategies import STRATEGIES, Found, find_strategy

LINE = np.array([[0.0], [1.0], [2.0], [10.0], [10.5]])  # distances are those of the line, but for one factor


def made(
    features: np.ndarray = LINE,
    uncertainty: tuple[float, ...] = (0.1, 0.5, 0.1, 0.2, 0.9),
    labelled: np.ndarray | None = None,
) -> Found:
    empty = np.empty((0, features.shape[1]))
    draws = np.random.default_rng(0).random(len(features))
    return Found(np.array(uncertainty), features, empty if labelled is None else labelled, draws)


def order(name: str, found: Found, count: int = 5) -> tuple[list[int], np.ndarray]:
    places, scores = find_strategy(name).order(found, count)
    assert (np.diff(scores) <= 0).all() and len(places) == len(scores) == min(count, len(found.features))
    return places.tolist(), scores


@pytest.mark.parametrize("name", ["uncertainty-views", "uncertainty-dropout"])
def test_the_most_uncertain_first(name: str) -> None:
    places, scores = order(name, made())
    assert places == [4, 1, 3, 0, 2]  # ties in the order given
    assert scores.tolist() == [0.9, 0.5, 0.2, 0.1, 0.1]
    assert order(name, made(), 2)[0] == [4, 1]


def test_the_farthest_first() -> None:
    # the mean is 4.7: 2 is nearest to it; then 10.5, and 0, which is 2 away from 2
    places, scores = order("diversity", made())
    assert places == [2, 4, 0, 1, 3] and scores[0] == scores[1]
    assert scores[1] / scores[2] == pytest.approx(8.5 / 2) and scores[4] / scores[2] == pytest.approx(0.5 / 2)


def test_labelled_pictures_are_kept_away_from() -> None:
    # 10.5 lies 0.3 from a label, 10 lies 0.2 from it
    assert order("diversity", made(labelled=np.array([[10.2], [9.0]])))[0] == [0, 2, 1, 4, 3]
    # weighed by how uncertain they are: 0.1 × 10.2 for the first, 0.5 × 9.2 for the second
    assert order("uncertainty-diversity", made(labelled=np.array([[10.2]])), 1)[0] == [1]


def test_the_uncertain_that_look_alike_do_not_come_together() -> None:
    found = made(uncertainty=(0.1, 0.2, 0.1, 0.8, 0.9))
    assert order("uncertainty-views", found, 2)[0] == [4, 3]
    assert order("uncertainty-diversity", found, 2)[0] == [4, 1]


def test_all_features_weigh_the_same_and_constant_ones_nothing() -> None:
    wide = np.column_stack([LINE[:, 0], 1000 * np.array([0, 1, 0, 0, 0]), np.full(5, 7.0)])
    narrow = wide / np.array([1, 1e6, 1])
    assert order("diversity", made(wide))[0] == order("diversity", made(narrow))[0]


def test_one_picture_and_equal_ones() -> None:
    for name in STRATEGIES:
        assert order(name, made(LINE[:1], (0.3,)))[0] == [0]
        places, scores = order(name, made(np.zeros((3, 2)), (0.0, 0.0, 0.0)))
        assert sorted(places) == [0, 1, 2] and np.isfinite(scores).all()


def test_chance_looks_at_nothing() -> None:
    found = made()
    assert order("random", found)[0] == np.argsort(-found.draws).tolist()
    assert not find_strategy("random").looks and all(one.looks for name, one in STRATEGIES.items() if name != "random")


def test_an_unknown_strategy() -> None:
    with pytest.raises(ProPLError, match="unknown strategy 'divers'; did you mean 'diversity'"):
        find_strategy("divers")
