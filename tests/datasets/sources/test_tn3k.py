"""TN3K: pairs by number, JPEG masks, official folds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from originals.tn3k import disc, make
from PIL import Image

from propl_monai.datasets.sources.tn3k import FOLDS, SOURCE, TASK, read_white
from propl_monai.errors import ProPLError


def splits(folder: Path, fold: str) -> dict[str, str | None]:
    return {record.name: record.split for record in SOURCE.open(folder, {"fold": fold}).records}


def test_pictures_and_masks(tmp_path: Path) -> None:
    make(tmp_path)
    reading = SOURCE.open(tmp_path)
    assert [record.name for record in reading.records] == [
        *(f"test_{index:04d}" for index in range(4)),
        *(f"trainval_{index:04d}" for index in range(10)),
    ]
    assert all(record.group == record.name for record in reading.records)
    assert reading.found == {"trainval pictures": 10, "test pictures": 4, "trainval masks": 10, "test masks": 4}
    assert reading.found.keys() == SOURCE.holds.keys() and reading.excluded == ()
    record = reading.records[-1]
    read_mask = record.masks[TASK]
    assert read_mask is not None and record.image().pixels.shape == (40, 56, 3)
    mask = read_mask()
    assert mask.dtype == np.bool_ and mask.shape == (40, 56)
    assert (mask & disc(9)).sum() / (mask | disc(9)).sum() > 0.97  # JPEG moves the edge by a pixel here and there


def test_masks_are_cut_at_127(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 12, 127], [128, 200, 255]], np.uint8)).save(tmp_path / "0000.png")
    assert read_white(tmp_path / "0000.png").tolist() == [[False, False, False], [True, True, True]]
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "0001.png")
    assert not read_white(tmp_path / "0001.png").any()
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "0002.png")
    with pytest.raises(ProPLError, match="holds values up to 1, where a mask of the published set is black and white"):
        read_white(tmp_path / "0002.png")


@pytest.mark.parametrize("fold", range(5))
def test_each_fold_is_the_official_one(tmp_path: Path, fold: int) -> None:
    make(tmp_path)
    found = splits(tmp_path, str(fold))
    assert {name for name, split in found.items() if split == "validation"} == {
        f"trainval_{fold:04d}",
        f"trainval_{fold + 5:04d}",
    }
    assert {name for name, split in found.items() if split == "test"} == {f"test_{index:04d}" for index in range(4)}
    assert list(found.values()).count("train") == 8


def test_a_missing_picture_moves_no_other(tmp_path: Path) -> None:
    home = make(tmp_path)
    (home / "trainval-image" / "0003.jpg").unlink()
    found = splits(tmp_path, "0")
    assert found["trainval_0005"] == "validation" and found["trainval_0006"] == "train"
    reading = SOURCE.open(tmp_path)
    assert [(each.name, each.reason) for each in reading.excluded] == [("trainval_0003", "its picture is missing")]
    assert (reading.found["trainval pictures"], reading.found["trainval masks"]) == (9, 10)


def test_without_folds(tmp_path: Path) -> None:
    home = make(tmp_path)
    for path in home.glob("*.json"):
        path.unlink()
    found = splits(tmp_path, "none")
    assert set(found.values()) == {None, "test"} and len(found) == 14
    with pytest.raises(ProPLError, match=r"fold0.json: is missing; download it .*, or give the option fold=none"):
        SOURCE.open(tmp_path)


def test_what_does_not_belong_is_told(tmp_path: Path) -> None:
    home = make(tmp_path)
    (home / "test-mask" / "0002.jpg").unlink()
    (home / "test-image" / "cover.jpg").write_bytes(b"x")
    (home / "test-image" / "2.png").write_bytes(b"x")
    (home / "labels.csv").write_text("x")
    (home / "test-image" / ".DS_Store").write_text("x")
    assert sorted((each.name, each.reason) for each in SOURCE.open(home).excluded) == [
        ("labels.csv", "is no part of TN3K's layout"),
        ("test-image/cover.jpg", "is no picture that is named by a number"),
        ("test_0002", "its mask is missing"),
        ("test_2.png", "has the number of another file of its folder"),
    ]


def test_only_the_test_set(tmp_path: Path) -> None:
    home = make(tmp_path, trainval=0)
    for path in home.glob("*.json"):
        path.unlink()
    assert set(splits(home, "0").values()) == {"test"}
    assert SOURCE.open(home).found["trainval pictures"] == 0


BAD_FOLDS: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "is not JSON"),
    "a list": ("[1]", "is not two lists of numbers"),
    "no val": ('{"train": [1]}', "is not two lists of numbers"),
    "names": ('{"train": ["0001"], "val": []}', "is not two lists of numbers"),
    "truth values": ('{"train": [true], "val": []}', "is not two lists of numbers"),
    "in both": (json.dumps({"train": list(range(10)), "val": [7]}), "has 7 in train and val"),
    "not placed": (json.dumps({"train": [0, 1], "val": [2]}), "places 7 of 10 pictures neither .*such as 0003"),
}


@pytest.mark.parametrize(("content", "fact"), BAD_FOLDS.values(), ids=list(BAD_FOLDS))
def test_bad_folds_are_named(tmp_path: Path, content: str, fact: str) -> None:
    (make(tmp_path) / "tn3k-trainval-fold0.json").write_text(content)
    with pytest.raises(ProPLError, match=f"tn3k-trainval-fold0.json: {fact}"):
        SOURCE.open(tmp_path)


def test_folders_that_are_not_it(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ProPLError, match=r"no folder with trainval-image or test-image .*two levels down: pictures"):
        SOURCE.open(tmp_path)
    (tmp_path / "a" / "test-image").mkdir(parents=True)
    with pytest.raises(ProPLError, match=r"holds no picture of TN3K; check that"):
        SOURCE.open(tmp_path)
    make(tmp_path / "b").rename(tmp_path / "tn3k")
    with pytest.raises(ProPLError, match=r"holds 2 folders with .* in them, such as 'a', 'tn3k'; name the one"):
        SOURCE.open(tmp_path)
    assert len(SOURCE.open(tmp_path / "tn3k").records) == 14


def test_the_option_is_checked(tmp_path: Path) -> None:
    make(tmp_path)
    assert SOURCE.options == {"fold": "0"} and "0" in FOLDS
    with pytest.raises(ProPLError, match="option fold: unknown value '5'"):
        SOURCE.open(tmp_path, {"fold": "5"})
