"""Two workers never have the same run, a dead one's run goes to exactly one other, and a sleeper is told."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from propl_monai.common.claims import Claim
from propl_monai.errors import ProPLError


def make_dead(folder: Path) -> None:
    """Age the newest claim."""
    newest = max(folder.glob("claim-*"), key=lambda path: int(path.name.split("-")[1]))
    os.utime(newest, (time.time() - 1000, time.time() - 1000))


def test_a_second_worker_is_turned_away_until_the_first_has_gone(tmp_path: Path) -> None:
    with Claim(tmp_path) as first:
        assert first.won
        with Claim(tmp_path) as second:
            assert not second.won
        with Claim(tmp_path) as third:  # a loser's exit gives nothing up that is not its own
            assert not third.won
    with Claim(tmp_path) as later:
        assert later.won
    assert not list(tmp_path.glob("claim-*"))


def _try(folder: str) -> bool:
    with Claim(Path(folder)) as claim:
        if claim.won:
            time.sleep(1.0)
        return claim.won


def test_of_many_processes_at_once_one_wins(tmp_path: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        assert sum(pool.map(_try, [str(tmp_path)] * 4, chunksize=1)) == 1


def test_a_dead_claim_goes_to_exactly_one(tmp_path: Path) -> None:
    (tmp_path / "claim-1").write_text("{}")
    make_dead(tmp_path)

    def attempt(_: int) -> bool:
        with Claim(tmp_path) as claim:
            if claim.won:
                time.sleep(0.3)
            return claim.won

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_sleeper_learns_that_it_lost_and_leaves_the_new_owner_alone(tmp_path: Path) -> None:
    with Claim(tmp_path, beat=1000) as sleeper:
        make_dead(tmp_path)
        with Claim(tmp_path) as other:
            assert other.won
            with pytest.raises(ProPLError, match="taken over by another worker"):
                sleeper.check()
            other.check()
            sleeper.__exit__()
            assert (tmp_path / "claim-2").exists()


@pytest.mark.parametrize("third", [False, True])
def test_a_sleeper_learns_that_the_other_has_finished(tmp_path: Path, third: bool) -> None:
    """The other has deleted both claims, so that the next worker's has the number of the sleeper's."""
    with Claim(tmp_path, beat=1000) as sleeper:
        make_dead(tmp_path)
        with Claim(tmp_path) as other:
            assert other.won
        assert not list(tmp_path.glob("claim-*"))
        if third:
            (tmp_path / "claim-1").write_text("{}")
            make_dead(tmp_path)
        with pytest.raises(ProPLError, match="taken over by another worker"):
            sleeper.check()
        sleeper.won = True  # as if it had not looked
    assert [path.name for path in tmp_path.iterdir()] == ["claim-1"] * third


def test_what_is_no_claim_is_passed_over(tmp_path: Path) -> None:
    for name in ("claim-1~", "claim-", "claim-²", "claim-one"):
        (tmp_path / name).write_text("{}")
    with Claim(tmp_path) as claim:
        assert claim.won and claim.path.name == "claim-1"
        claim.check()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_living_claim_is_touched(tmp_path: Path) -> None:
    with Claim(tmp_path, beat=0.05):
        make_dead(tmp_path)
        deadline = time.monotonic() + 20
        while time.time() - (tmp_path / "claim-1").stat().st_mtime > 100:
            assert time.monotonic() < deadline, "nobody touches the claim"
            time.sleep(0.05)
