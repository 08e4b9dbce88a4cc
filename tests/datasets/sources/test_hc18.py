"""HC18: outlines become heads, examinations become groups, pixel sizes come from the CSV."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from originals.hc18 import ELLIPSES, HEIGHT, WIDTH, inside, make
from PIL import Image, ImageDraw

from propl_monai.datasets.sources.base import Exclusion, Record
from propl_monai.datasets.sources.hc18 import SOURCE, TASK, read_hc18, read_head
from propl_monai.errors import ProPLError


def by_name(records: tuple[Record, ...]) -> dict[str, Record]:
    return {record.name: record for record in records}


def test_what_is_there(tmp_path: Path) -> None:
    reading = SOURCE.open(make(tmp_path))
    assert [record.name for record in reading.records] == [
        *("000_HC", "010_2HC", "010_HC", "787_HC"),
        *("test_000_HC", "test_001_HC"),
    ]
    assert [record.group for record in reading.records] == ["000", "010", "010", "787", "test_000", "test_001"]
    assert [record.masks[TASK] is None for record in reading.records] == [False] * 4 + [True] * 2
    assert reading.found == {
        "training pictures": 4,
        "annotations": 4,
        "test pictures": 2,
        "pictures with a pixel size": 6,
    }
    assert reading.found.keys() == SOURCE.holds.keys() and not reading.excluded


def test_pixel_sizes_come_from_the_csv_of_each_part(tmp_path: Path) -> None:
    records = by_name(read_hc18(make(tmp_path)).records)
    assert records["010_2HC"].image().spacing_mm == (0.079927246, 0.079927246)
    assert records["000_HC"].image().spacing_mm == (0.069135804, 0.069135804)
    assert records["test_000_HC"].image().spacing_mm == (0.11, 0.11)
    assert records["000_HC"].image().pixels.shape == (HEIGHT, WIDTH)


def test_without_a_csv_the_spacing_is_unknown(tmp_path: Path) -> None:
    reading = read_hc18(make(tmp_path, pixel_sizes=False, test_set=False))
    assert len(reading.records) == 4 and reading.records[0].image().spacing_mm is None
    assert reading.found["pictures with a pixel size"] == 0 and reading.found["test pictures"] == 0


@pytest.mark.parametrize("name", ["000_HC", "010_HC", "010_2HC"])
@pytest.mark.parametrize("filled", [False, True])
def test_a_closed_outline_is_filled(tmp_path: Path, name: str, filled: bool) -> None:
    head = read_head(make(tmp_path, filled=filled) / "training_set" / f"{name}_Annotation.png")
    assert head.dtype == np.bool_ and head.shape == (HEIGHT, WIDTH)
    assert np.count_nonzero(head != inside(name)) <= 0.02 * np.count_nonzero(head)  # pixels on the border


def test_an_outline_cut_by_the_edge_is_continued(tmp_path: Path) -> None:
    path = make(tmp_path) / "training_set" / "787_HC_Annotation.png"
    line = np.asarray(Image.open(path)) > 0
    head = read_head(path)
    assert not line[0, 40] and head[0, 40]  # the line leaves at the top; below the gap lies the head
    assert not (line & ~head).any()
    assert np.count_nonzero(head != inside("787_HC")) <= 0.03 * np.count_nonzero(head)


def test_a_turned_ellipse_is_continued_on_its_own_axis(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:200, :300].astype(float)
    down, right, angle = rows - 60, columns - 150, np.deg2rad(30)
    radius = np.hypot(
        (right * np.cos(angle) + down * np.sin(angle)) / 110, (down * np.cos(angle) - right * np.sin(angle)) / 80
    )
    path = tmp_path / "turned.png"
    Image.fromarray(((np.abs(radius - 1) < 0.015) * 255).astype(np.uint8)).save(path)
    expected = radius < 1.015
    assert expected[0].any()  # it leaves the picture
    assert np.count_nonzero(read_head(path) != expected) <= 0.01 * np.count_nonzero(expected)


def test_lines_that_are_no_ellipse_are_refused(tmp_path: Path) -> None:
    picture = Image.new("L", (WIDTH, HEIGHT), 0)
    picture.save(tmp_path / "empty.png")
    with pytest.raises(ProPLError, match="without a line"):
        read_head(tmp_path / "empty.png")
    ImageDraw.Draw(picture).line([(5, 5), (70, 5), (8, 50), (70, 50)], fill=255, width=3)
    picture.save(tmp_path / "zigzag.png")
    with pytest.raises(ProPLError, match=r"zigzag.png: is neither a closed outline nor a part of an ellipse"):
        read_head(tmp_path / "zigzag.png")
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(tmp_path / "short.png")
    with pytest.raises(ProPLError, match="nor a part of an ellipse"):
        read_head(tmp_path / "short.png")


def test_strays_are_named(tmp_path: Path) -> None:
    home = make(tmp_path)
    (home / "training_set" / "010_HC_Annotation.png").unlink()
    (home / "training_set" / "000_HC.png").unlink()
    Image.new("L", (4, 4)).save(home / "training_set" / "scan.png")
    Image.new("L", (4, 4)).save(home / "test_set" / "000_HC_Predicted.png")
    reading = read_hc18(home)
    assert set(reading.excluded) == {
        Exclusion("010_HC", "has no annotation"),
        Exclusion("training_set/000_HC_Annotation.png", "is a mask without an image"),
        Exclusion("training_set/scan.png", "is not named as the published pictures are"),
        Exclusion("test_set/000_HC_Predicted.png", "is not named as the published pictures are"),
    }
    assert reading.found["annotations"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,pixel size\n000_HC.png,1\n", r"HC.csv: has no column 'pixel size\(mm\)'"),
        (
            "filename,pixel size(mm)\n000_HC.png,0.1\n010_HC.png,-1\n",
            "HC.csv, line 3: pixel size '-1' is not a positive",
        ),
        ("filename,pixel size(mm)\n000_HC.png\n", "line 2: pixel size '' is not a positive"),
    ],
)
def test_a_csv_that_is_not_as_published_is_refused(tmp_path: Path, text: str, message: str) -> None:
    home = make(tmp_path)
    (home / "training_set_pixel_size_and_HC.csv").write_text(text)
    with pytest.raises(ProPLError, match=message):
        read_hc18(home)


@pytest.mark.parametrize("place", [".", "..", "training_set"])
def test_any_folder_near_the_set_will_do(tmp_path: Path, place: str) -> None:
    assert len(SOURCE.open(make(tmp_path) / place).records) == len(ELLIPSES) + 2


def test_parts_unpacked_into_folders_of_their_own_names(tmp_path: Path) -> None:
    home = make(tmp_path)
    for part in ("training_set", "test_set"):
        shutil.move(home / part, home / "moved")
        shutil.move(home / "moved", home / part / part)
    assert len(SOURCE.open(tmp_path).records) == len(ELLIPSES) + 2
