"""Frames of cines: the right one in any order, one decoding for all when asked in order, faults told every time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from propl_monai.datasets.sources import cines
from propl_monai.datasets.sources.cines import KEPT_FRAMES, parse_every, read_frame
from propl_monai.errors import ProPLError
from propl_monai.images import Cine

COUNT = 30


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the frames decoded; frame n has the value n, and `broken` cannot be decoded from frame 4 on."""
    log: list[int] = []

    def frames(path: Path) -> Iterator[np.ndarray]:
        for number in range(1, COUNT + 1):
            if path.name == "broken" and number == 4:
                raise ProPLError(path, "is damaged at frame 4", "copy it again")
            log.append(number)
            yield np.full((2, 3), number, np.uint8)

    def read_frames(path: Path) -> Cine:
        return Cine(COUNT, (0.2, 0.3), None, lambda: frames(path))

    cines._play.cache_clear()
    monkeypatch.setattr(cines, "read_frames", read_frames)
    return log


def value(path: str, number: int) -> int:
    return int(read_frame(Path(path), number).pixels[1, 2])


def test_frames_asked_for_in_order_are_decoded_once(decoded: list[int]) -> None:
    assert [value("a", number) for number in (1, 1, 2, 5, 5, 9)] == [1, 1, 2, 5, 5, 9]
    assert decoded == list(range(1, 10))
    assert read_frame(Path("a"), 9).spacing_mm == (0.2, 0.3)


def test_a_cine_and_its_label_maps_can_be_read_side_by_side(decoded: list[int]) -> None:
    for number in (1, 2, 3):
        assert (value("a", number), value("b", number)) == (number, number)
    assert decoded == [1, 1, 2, 2, 3, 3]


def test_recent_frames_are_kept_and_older_ones_decoded_anew(decoded: list[int]) -> None:
    assert value("a", 20) == 20
    assert value("a", 20 - KEPT_FRAMES + 1) == 20 - KEPT_FRAMES + 1
    assert len(decoded) == 20
    assert value("a", 20 - KEPT_FRAMES) == 20 - KEPT_FRAMES
    assert len(decoded) == 20 + 20 - KEPT_FRAMES


def test_threads_get_the_frames_that_they_asked_for(decoded: list[int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: value("a", number), range(1, COUNT + 1))) == list(range(1, COUNT + 1))


def test_a_fault_is_told_for_every_frame_behind_it(decoded: list[int]) -> None:
    assert value("broken", 3) == 3
    for number in (4, 5):
        with pytest.raises(ProPLError, match="is damaged at frame 4"):
            read_frame(Path("broken"), number)
    assert value("broken", 2) == 2


def test_a_cine_that_ends_too_early_is_told(decoded: list[int]) -> None:
    with pytest.raises(ProPLError, match="ends after frame 30, and frame 31 is wanted"):
        read_frame(Path("a"), 31)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "two", "²"])
def test_every_is_a_whole_number_from_one(text: str) -> None:
    assert parse_every("CAMUS", "12") == 12
    with pytest.raises(ProPLError, match="is not a whole number of at least 1"):
        parse_every("CAMUS", text)
