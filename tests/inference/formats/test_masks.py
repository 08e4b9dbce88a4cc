"""Masks come back from their compressed form, and a cine that is too long is refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_samples import drawn, filled

from propl_monai.errors import ProPLError
from propl_monai.inference.formats import masks as module


def test_masks_come_back(tmp_path: Path) -> None:
    frames = drawn()
    masks = filled(tmp_path / "b (1).avi", frames)
    for _ in range(2):
        np.testing.assert_array_equal(list(masks), frames)
    assert masks.size == frames.shape[2:]
    assert masks.names() == [f"deep er/b (1)_frame_000{number}" for number in (1, 2, 3)]
    assert masks.picture_names() == [f"deep er/b (1)_frame_000{number}.png" for number in (1, 2, 3)]
    still = filled(tmp_path / "b (1).bmp", frames[:1])
    assert (still.names(), still.picture_names()) == (["deep er/b (1)"], ["deep er/b (1).bmp"])


def test_too_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = filled(tmp_path / "a.avi", drawn())
    monkeypatch.setattr(module, "MOST_VALUES", 3 * 23 * 37)
    masks.require_room()
    with pytest.raises(ProPLError, match=r"a.avi: its masks hold 5,106 values, more than 2,553 in one file"):
        masks.require_room(layers=2)
