"""BUSI: several masks a picture in three storage modes, normal breasts, near-duplicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from originals.busi import BOXES, HEIGHT, WIDTH, make
from PIL import Image

from propl_monai.datasets.sources.base import Exclusion, Record
from propl_monai.datasets.sources.busi import NEAR_DUPLICATES, SOURCE, TASK, read_busi
from propl_monai.errors import ProPLError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make(tmp_path / "downloads" / "archive")


def by_name(records: tuple[Record, ...]) -> dict[str, Record]:
    return {record.name: record for record in records}


def mask_of(record: Record) -> np.ndarray:
    mask = record.masks[TASK]
    assert mask is not None
    return mask()


def test_what_is_there_and_what_is_left_out(home: Path) -> None:
    reading = SOURCE.open(home)
    assert [record.name for record in reading.records] == [
        "benign (1)",
        "benign (195)",
        "benign (65)",
        "malignant (53)",
    ]
    assert {each.name: each.reason for each in reading.excluded} == {
        "benign (139)": "is nearly the same picture as benign (65)",
        "malignant (93)": "is nearly the same picture as benign (399), which the publishers file under the other diagnosis",
        "normal (1)": "shows no tumour",
    }
    assert reading.found == {"benign images": 4, "malignant images": 2, "normal images": 1, "masks": 10}
    assert reading.found.keys() == SOURCE.holds.keys()
    assert all(record.split is None and record.group == record.name for record in reading.records)


@pytest.mark.parametrize("name", ["benign (1)", "benign (195)", "malignant (53)"])
def test_masks_are_united_whatever_their_mode(home: Path, name: str) -> None:
    record = by_name(read_busi(home).records)[name]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for top, left, bottom, right in BOXES[name]:
        expected[top:bottom, left:right] = True
    mask = mask_of(record)
    assert mask.dtype == np.bool_ and np.array_equal(mask, expected)
    assert record.image().pixels.shape == (HEIGHT, WIDTH)  # RGB of equal channels is grey


def test_options_keep_what_is_left_out(home: Path) -> None:
    records = by_name(SOURCE.open(home, {"normal": "keep", "near_duplicates": "keep"}).records)
    assert records.keys() == BOXES.keys()
    assert not mask_of(records["normal (1)"]).any()
    assert records["benign (139)"].group == records["benign (65)"].group  # or they would leak between splits
    assert records["malignant (93)"].group == "benign (399)"
    with pytest.raises(ProPLError, match="option normal: unknown value 'maybe'"):
        SOURCE.open(home, {"normal": "maybe"})


@pytest.mark.parametrize("place", [".", "..", "benign", "../.."])
def test_any_folder_near_the_set_will_do(home: Path, place: str) -> None:
    assert len(read_busi(home / place).records) == 4


def test_strays_are_named(home: Path) -> None:
    Image.new("L", (4, 4)).save(home / "benign" / "benign (7)_mask.png")
    Image.new("L", (4, 4)).save(home / "benign" / "scan.png")
    (home / "malignant" / "notes.txt").write_text("x")
    (home / "malignant" / "malignant (53)_mask.png").unlink()
    (home / "malignant" / "malignant (53)_mask_1.png").unlink()
    (home / "benign" / "Thumbs.db").write_text("x")
    (home / "benign" / "._benign (1).png").write_text("x")
    excluded = read_busi(home).excluded
    assert len(excluded) == 3 + 4
    assert set(excluded) >= {
        Exclusion("benign/benign (7)_mask.png", "is a mask without an image"),
        Exclusion("benign/scan.png", "is not named as the published pictures are"),
        Exclusion("malignant (53)", "has no mask"),
    }
    assert "malignant/notes.txt" in {each.name for each in excluded}


def test_masks_that_would_come_out_wrong_are_refused(home: Path) -> None:
    records = by_name(read_busi(home).records)
    Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(home / "benign" / "benign (1)_mask.png")
    with pytest.raises(ProPLError, match=r"benign \(1\)_mask.png: is a mask whose brightest value is 1"):
        mask_of(records["benign (1)"])
    Image.new("1", (WIDTH, HEIGHT + 1)).save(home / "benign" / "benign (195)_mask_1.png")
    with pytest.raises(ProPLError, match=r"_mask_1.png: is 25 × 32, benign \(195\)_mask.png is 24 × 32"):
        mask_of(records["benign (195)"])


def test_nothing_is_decoded_before_it_is_asked_for(home: Path) -> None:
    (home / "benign" / "benign (1).png").write_text("no picture")
    record = by_name(read_busi(home).records)["benign (1)"]
    with pytest.raises(ProPLError, match="plain text"):
        record.image()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="holds no folder with 'benign', 'malignant' in it"):
        SOURCE.open(tmp_path)


def test_the_list_of_near_duplicates_is_sound() -> None:
    assert len(NEAR_DUPLICATES) == 24
    assert not NEAR_DUPLICATES.keys() & set(NEAR_DUPLICATES.values())  # one step leads to a picture that is kept
    assert SOURCE.options == {"normal": "drop", "near_duplicates": "drop"}
