"""MMOTU: colours of classes become one target, the authors' lists become splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from originals.mmotu import DRAWN, HEIGHT, WIDTH, make
from PIL import Image

from propl_monai.datasets.sources.base import Exclusion, Record
from propl_monai.datasets.sources.mmotu import SOURCE, TASK, read_mmotu
from propl_monai.errors import ProPLError


def mask_of(records: tuple[Record, ...], name: str) -> np.ndarray:
    mask = {record.name: record for record in records}[name].masks[TASK]
    assert mask is not None
    return mask()


def test_what_is_there(tmp_path: Path) -> None:
    reading = SOURCE.open(make(tmp_path))
    assert [(record.name, record.split) for record in reading.records] == [
        ("1", "train"),
        ("10", "train"),
        ("1469", "test"),
        ("2", "test"),
    ]
    assert all(record.group == record.name for record in reading.records)
    assert reading.found == {"pictures": 4, "annotations": 4, "training pictures": 2, "test pictures": 2}
    assert reading.found.keys() == SOURCE.holds.keys() and not reading.excluded
    assert reading.records[0].image().pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("binary", [True, False])
def test_every_colour_is_target(tmp_path: Path, name: str, binary: bool) -> None:
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for _, (top, left, bottom, right) in DRAWN[name]:
        expected[top:bottom, left:right] = True
    assert np.array_equal(mask_of(read_mmotu(make(tmp_path, binary=binary)).records, name), expected)


def test_normal_ovaries_can_be_left_out(tmp_path: Path) -> None:
    home = make(tmp_path)
    reading = SOURCE.open(home, {"normal_ovary": "drop"})
    assert [record.name for record in reading.records] == ["1", "10", "1469"]
    assert reading.excluded == (Exclusion("2", "shows a normal ovary, not a tumour"),)
    assert reading.found["pictures"] == 4  # found counts what lies there
    grey = Image.open(home / "annotations" / "2.PNG").convert("L")  # the one class that can lose its channels
    grey.save(home / "annotations" / "2.PNG")
    assert SOURCE.open(home, {"normal_ovary": "drop"}).excluded == reading.excluded
    with pytest.raises(ProPLError, match="option normal_ovary: unknown value 'no'"):
        SOURCE.open(home, {"normal_ovary": "no"})


def test_a_damaged_annotation_does_not_stop_the_others(tmp_path: Path) -> None:
    home = make(tmp_path)
    (home / "annotations" / "10.PNG").write_text("no picture")
    reading = SOURCE.open(home, {"normal_ovary": "drop"})
    assert [record.name for record in reading.records] == ["1", "10", "1469"]
    with pytest.raises(ProPLError, match=r"10.PNG: is plain text"):
        mask_of(reading.records, "10")


def test_without_lists_there_is_no_official_split(tmp_path: Path) -> None:
    reading = read_mmotu(make(tmp_path, lists={}))
    assert [record.split for record in reading.records] == [None] * 4
    assert reading.found["training pictures"] == reading.found["test pictures"] == 0


def test_lists_may_name_files_and_leave_pictures_out(tmp_path: Path) -> None:
    reading = read_mmotu(make(tmp_path, lists={"train.txt": ("1.JPG", "77.JPG"), "val.txt": ("2.JPG", "10.JPG")}))
    assert {record.name: record.split for record in reading.records} == {"1": "train", "2": "test", "10": "test"}
    assert reading.excluded == (Exclusion("1469", "is in neither of the lists train.txt and val.txt"),)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train.txt": ("1",)}, "val.txt: does not exist"),
        ({"train.txt": ("1", "2"), "val.txt": ("2", "10")}, "val.txt: names '2', as the other list does"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(
    tmp_path: Path, lists: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(ProPLError, match=message):
        read_mmotu(make(tmp_path, lists=lists))


def test_annotations_are_checked_when_they_are_read(tmp_path: Path) -> None:
    home = make(tmp_path)
    folder = home / "annotations"
    records = read_mmotu(home).records
    pixels = np.asarray(Image.open(folder / "1_binary.PNG")).copy()
    pixels[0, 0] = pixels[15, 3] = 1
    Image.fromarray(pixels).save(folder / "1_binary.PNG")
    with pytest.raises(ProPLError, match=r"1_binary.PNG: differs from 1.PNG in 2 pixels"):
        mask_of(records, "1")
    Image.new("L", (WIDTH - 1, HEIGHT)).save(folder / "2_binary.PNG")
    with pytest.raises(ProPLError, match=r"2_binary.PNG: is 16 × 19, 2.PNG is 16 × 20"):
        mask_of(records, "2")
    Image.new("RGB", (WIDTH, HEIGHT), (63, 1, 0)).save(folder / "10.PNG")
    with pytest.raises(ProPLError, match=r"10.PNG: holds 1 colours that are no class of MMOTU, such as \(63, 1, 0\)"):
        mask_of(records, "10")


def test_strays_are_named(tmp_path: Path) -> None:
    home = make(tmp_path)
    Image.new("L", (4, 4)).save(home / "annotations" / "1_binary_binary.PNG")
    Image.new("L", (4, 4)).save(home / "annotations" / "5.PNG")
    Image.new("L", (4, 4)).save(home / "images" / "cover.JPG")
    (home / "annotations" / "2.PNG").unlink()
    assert set(read_mmotu(home).excluded) == {
        Exclusion("annotations/1_binary_binary.PNG", "is not named as the published annotations are"),
        Exclusion("annotations/5.PNG", "is an annotation without an image"),
        Exclusion("images/cover.JPG", "is not named as the published pictures are"),
        Exclusion("2", "has no annotation"),
    }


def test_the_part_of_plain_ultrasound_is_taken_from_the_whole(tmp_path: Path) -> None:
    home = make(tmp_path)
    for part in ("images", "annotations"):
        (tmp_path / "OTU_3d" / part).mkdir(parents=True)
    assert len(SOURCE.open(tmp_path).records) == 4
    assert len(SOURCE.open(home / "images").records) == 4
