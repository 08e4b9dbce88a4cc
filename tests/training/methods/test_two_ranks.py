"""Two processes that train together end with the same weights, whatever the method."""

from __future__ import annotations

import json
from pathlib import Path

import apart
import pytest

from propl_monai.training.methods import METHODS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank says; one launch for all methods."""
    folder = tmp_path_factory.mktemp("ranks")
    done = apart.run(Path(__file__).with_name("two_ranks.py"), [folder], timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", METHODS)
def test_ranks_agree_after_different_batches(found: list[dict], name: str) -> None:
    (first, losses), (second, other_losses) = (rank[name] for rank in found)
    assert first == second
    assert losses[0] != pytest.approx(other_losses[0], rel=1e-4)  # each had images of its own
