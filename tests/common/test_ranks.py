"""What each of several processes takes, seen from one; real processes: `tests/bundle/test_several_ranks.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from propl_monai.common import ranks
from propl_monai.errors import ProPLError


def pretend(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    monkeypatch.setattr(ranks, "rank_and_count", lambda: (rank, count))


def test_alone() -> None:
    assert ranks.rank_and_count() == (0, 1) and ranks.is_writer()
    assert list(ranks.share(3)) == [0, 1, 2] and list(ranks.share(1)) == [0]
    rows = ["a", "b"]
    assert ranks.gather_in_turn(rows) == rows and ranks.gather_in_turn(rows) is not rows
    assert ranks.holds_everywhere(True, torch.device("cpu")) is True
    assert ranks.holds_everywhere(False, torch.device("cpu")) is False


@pytest.mark.parametrize(("size", "count"), [(7, 3), (6, 3), (3, 3), (5, 1)])
def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch, size: int, count: int) -> None:
    shares: list[list[int]] = []
    for rank in range(count):
        pretend(monkeypatch, rank, count)
        shares.append(list(ranks.share(size)))
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1

    def gather(parts: list[Any], mine: Any) -> None:
        assert mine == shares[-1]
        parts[:] = shares

    monkeypatch.setattr(ranks.distributed, "all_gather_object", gather)
    assert ranks.gather_in_turn(shares[-1]) == list(range(size))


def test_a_row_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0, 2)

    def gather(parts: list[Any], mine: Any) -> None:
        parts[:] = [[None, 2], [1]]

    monkeypatch.setattr(ranks.distributed, "all_gather_object", gather)
    assert ranks.gather_in_turn([None, 2]) == [None, 1, 2]


def test_more_processes_than_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank without a batch would skip its run, and the others would wait for it for ever."""
    pretend(monkeypatch, 0, 3)
    with pytest.raises(ProPLError, match="ranks: 2 cases are too few for 3 processes; start fewer processes"):
        ranks.share(2)
