"""UDIAT: two folders of equal names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from originals.udiat import NAMES, make
from PIL import Image

from propl_monai.datasets.sources.base import Exclusion
from propl_monai.datasets.sources.udiat import SOURCE, TASK
from propl_monai.errors import ProPLError


@pytest.mark.parametrize("place", [".", "..", "GT"])
def test_images_and_masks_belong_together_by_name(tmp_path: Path, place: str) -> None:
    reading = SOURCE.open(make(tmp_path) / place)
    assert [record.name for record in reading.records] == list(NAMES)
    assert all(record.group == record.name and record.split is None for record in reading.records)
    mask = reading.records[2].masks[TASK]
    assert mask is not None
    assert np.array_equal(mask(), np.indices((20, 30))[1] < 15)
    assert reading.records[2].image().pixels.shape == (20, 30)
    assert reading.found == {"images": 3, "masks": 3} and not reading.excluded
    assert reading.found.keys() == SOURCE.holds.keys()


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    home = make(tmp_path, without_mask="000002")
    Image.new("L", (4, 4)).save(home / "GT" / "000009.png")
    (home / "original" / "list.xlsx").write_text("x")
    reading = SOURCE.open(home)
    assert [record.name for record in reading.records] == ["000001", "000007"]
    assert reading.found == {"images": 3, "masks": 3}
    assert {each.name for each in reading.excluded} == {"000002", "GT/000009.png", "original/list.xlsx"}
    assert Exclusion("000002", "has no mask") in reading.excluded


def test_masks_must_be_of_two_values(tmp_path: Path) -> None:
    home = make(tmp_path)
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(home / "GT" / "000001.png")
    mask = SOURCE.open(home).records[0].masks[TASK]
    assert mask is not None
    with pytest.raises(ProPLError, match=r"000001.png: holds 256 values"):
        mask()


def test_two_copies_are_not_chosen_from(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(ProPLError, match="holds 2 folders with 'original', 'GT' in them, such as 'a/BUS', 'b/BUS'"):
        SOURCE.open(tmp_path)
