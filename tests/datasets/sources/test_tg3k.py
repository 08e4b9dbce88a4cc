"""TG3K: letters in masks, videos as groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from originals.tg3k import SIZES, gland, letters, make, write_frame
from PIL import Image

from propl_monai.datasets.sources.tg3k import SOURCE, TASK, read_gland
from propl_monai.errors import ProPLError

VIDEOS = ["video0000"] * 3 + ["video0003"] * 4 + ["video0007"] * 2


def write_mask(path: Path, white: np.ndarray) -> Path:
    Image.fromarray(white.astype(np.uint8) * 255).save(path)
    return path


def test_pictures_masks_and_videos(tmp_path: Path) -> None:
    make(tmp_path)
    reading = SOURCE.open(tmp_path)
    assert [record.name for record in reading.records] == [f"{number:04d}" for number in range(9)]
    assert [record.group for record in reading.records] == VIDEOS
    assert {record.split for record in reading.records} == {None}
    assert reading.found == {"pictures": 9, "masks": 9, "videos": 3} and reading.found.keys() == SOURCE.holds.keys()
    for record in reading.records:
        read_mask = record.masks[TASK]
        assert read_mask is not None
        assert np.array_equal(read_mask(), gland(record.image().pixels.shape[:2]))  # without letters, with the island


def test_letters_are_small_and_wholly_in_the_corner(tmp_path: Path) -> None:
    size = (100, 200)  # letters: fewer than 20 pixels, in rows 0 to 24 and columns 0 to 39
    white = np.zeros(size, bool)
    white[60:90, 60:90] = True
    kept = white.copy()
    for rows, columns, is_letter in (
        (slice(0, 3), slice(0, 6), True),  # 18 pixels
        (slice(22, 25), slice(37, 40), True),  # the last corner that counts
        (slice(5, 9), slice(0, 5), False),  # 20 pixels
        (slice(23, 26), slice(10, 12), False),  # reaches below the corner
        (slice(0, 2), slice(39, 41), False),  # reaches out of it sideways
    ):
        white[rows, columns] = True
        kept[rows, columns] = not is_letter
    assert np.array_equal(read_gland(write_mask(tmp_path / "0000.png", white)), kept)


def test_a_gland_that_begins_in_the_corner_stays(tmp_path: Path) -> None:
    white = np.zeros((100, 200), bool)
    white[0:50, 0:30] = True
    assert read_gland(write_mask(tmp_path / "0000.png", white)).sum() == 1500


def test_letters_alone_are_no_mask(tmp_path: Path) -> None:
    home = make(tmp_path, frames=(2, 1, 1))
    write_frame(home, 1, SIZES[0], with_gland=False)
    read_mask = SOURCE.open(tmp_path).records[1].masks[TASK]
    assert read_mask is not None and letters(SIZES[0]).any()
    with pytest.raises(ProPLError, match=r"0001.jpg: holds no gland"):
        read_mask()
    with pytest.raises(ProPLError, match=r"0000.png: holds no gland"):
        read_gland(write_mask(tmp_path / "0000.png", np.zeros((9, 9), bool)))


def test_a_size_that_comes_back_is_another_video(tmp_path: Path) -> None:
    make(tmp_path, frames=(2, 1, 2), sizes=(SIZES[0], SIZES[1], SIZES[0]))
    assert [record.group[-1] for record in SOURCE.open(tmp_path).records] == ["0", "0", "2", "3", "3"]


def test_pictures_of_one_size_are_one_group_and_the_count_tells(tmp_path: Path) -> None:
    make(tmp_path, sizes=(SIZES[0],) * 3)
    reading = SOURCE.open(tmp_path)
    assert {record.group for record in reading.records} == {"video0000"} and reading.found["videos"] == 1


def test_more_videos_than_there_are_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "16", frames=[1] * 16, sizes=[(70, 100 + index) for index in range(16)])
    assert SOURCE.open(tmp_path / "16").found["videos"] == 16
    make(tmp_path / "17", frames=[1] * 17, sizes=[(70, 100 + index) for index in range(17)])
    with pytest.raises(ProPLError, match=r"size of its pictures changes 16 times, .* give the option videos=FILE"):
        SOURCE.open(tmp_path / "17")


def test_an_unreadable_picture_divides_no_video(tmp_path: Path) -> None:
    home = make(tmp_path)
    for number in (0, 4):
        (home / "thyroid-image" / f"{number:04d}.jpg").write_bytes(b"no picture")
    reading = SOURCE.open(tmp_path)
    assert [record.group for record in reading.records] == VIDEOS
    with pytest.raises(ProPLError, match=r"0004.jpg"):
        reading.records[4].image()


def test_videos_from_a_list(tmp_path: Path) -> None:
    make(tmp_path, sizes=(SIZES[0],) * 3)
    table = tmp_path / "videos.csv"
    table.write_text("name,group,note\n" + "".join(f"{number:04d}.jpg,sweep{number // 5},\n" for number in range(12)))
    reading = SOURCE.open(tmp_path / "data", {"videos": str(table)})
    assert [record.group for record in reading.records] == ["sweep0"] * 5 + ["sweep1"] * 4
    assert reading.found["videos"] == 2


BAD_LISTS = {
    "no column": ("name,video\n0000,a\n", "has no column 'group'"),
    "two groups": ("name,group\n0000,a\n0000,b\n", "gives 0000 two groups, a and b"),
    "two spellings": ("name,group\n0000,a\n0001,A\n", "names groups that differ only in spelling: 'A' and 'a'"),
    "frames missing": ("name,group\n0000,a\n0001,\n", "names no group for 8 of 9 frames .such as 0001"),
    "not UTF-8": (b"name,group\n\xff,a\n", "cannot be read as CSV"),
    "empty": (b"", "is empty"),
}


@pytest.mark.parametrize(("content", "fact"), BAD_LISTS.values(), ids=list(BAD_LISTS))
def test_bad_lists_are_named(tmp_path: Path, content: str | bytes, fact: str) -> None:
    make(tmp_path)
    table = tmp_path / "videos.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProPLError, match=f"videos.csv: {fact}"):
        SOURCE.open(tmp_path, {"videos": str(table)})
    with pytest.raises(ProPLError, match=r"nowhere.csv: does not exist"):
        SOURCE.open(tmp_path, {"videos": str(tmp_path / "nowhere.csv")})


def test_the_published_split_is_used_where_it_leaves_videos_whole(tmp_path: Path) -> None:
    make(tmp_path, validation=(3, 4, 5, 6))
    reading = SOURCE.open(tmp_path)
    assert [record.split for record in reading.records] == ["train"] * 3 + ["validation"] * 4 + ["train"] * 2
    assert reading.excluded == ()


def test_a_published_split_that_divides_a_video_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, validation=(3, 4))
    reading = SOURCE.open(tmp_path)
    assert {record.split for record in reading.records} == {None}
    assert [(each.name, each.reason) for each in reading.excluded] == [
        ("tg3k-trainval.json", "puts frames of one video into train and validation")
    ]


def test_what_does_not_belong_is_told(tmp_path: Path) -> None:
    home = make(tmp_path)
    (home / "thyroid-mask" / "0001.jpg").unlink()
    (home / "readme.txt").write_text("x")
    assert [(each.name, each.reason) for each in SOURCE.open(home).excluded] == [
        ("0001", "its mask is missing"),
        ("readme.txt", "is no part of TG3K's layout"),
    ]
    with pytest.raises(ProPLError, match="holds no folder with thyroid-image"):
        SOURCE.open(home / "thyroid-image")
