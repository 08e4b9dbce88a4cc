"""HMC-QU in both forms: the frames of a heartbeat with their masks, names with blanks, what does not fit told by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the extra 'video'")
pytest.importorskip("openpyxl", reason="tables need the extra 'video'")

from originals import hmc_qu as fake

from propl_monai.datasets.sources.hmc_qu import MASKS, SOURCE, _stretch
from propl_monai.errors import ProPLError

MAT = Path(MASKS) / f"Mask_{fake.LABELLED}.mat"


def expected_mask(index: int) -> np.ndarray:
    """Frames are 48 x 64: a quarter of the height is 12 rows, half of the width 32 columns."""
    mask = np.zeros((fake.HEIGHT, fake.WIDTH), bool)
    mask[12 * index : 12 * index + 12, :32] = True
    return mask


def reasons(folder: Path) -> dict[str, str]:
    """What is left out when nothing else is there; videos without masks are asked for, so that something is."""
    return {each.name: each.reason for each in SOURCE.open(folder, {"videos": "A4C"}).excluded}


@pytest.mark.parametrize("form", ["kaggle", "older"])
def test_frames_of_the_heartbeat_with_their_masks(tmp_path: Path, form: str) -> None:
    reading = SOURCE.open(fake.make(tmp_path, form))
    assert [record.name for record in reading.records] == [f"ES0001 _4CH_1_frame00{number}" for number in (2, 3, 4)]
    assert {(record.group, record.split) for record in reading.records} == {("ES0001", None)}
    for index, record in enumerate(reading.records):
        np.testing.assert_array_equal(record.image().pixels, fake.frame(index + 2))
        read = record.masks["myocardium"]
        assert read is not None
        mask = read()
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, expected_mask(index))
    assert reading.found == {"A4C videos": 2, "videos with masks": 1}
    assert reading.excluded == ()


@pytest.mark.parametrize(("videos", "groups"), [("A4C", ["ES0002"] * 3), ("all", ["ES0001"] * 3 + ["ES0002"] * 3)])
def test_videos_without_masks_are_unlabelled_when_asked_for(tmp_path: Path, videos: str, groups: list[str]) -> None:
    reading = SOURCE.open(fake.make(tmp_path), {"videos": videos, "every": "2"})
    assert len([record for record in reading.records if record.masks["myocardium"]]) == 2  # frames 2 and 4
    unlabelled = [record for record in reading.records if record.masks == {"myocardium": None}]
    assert [record.group for record in unlabelled] == groups
    assert [record.name[-8:] for record in unlabelled[-3:]] == ["frame001", "frame003", "frame005"]
    np.testing.assert_array_equal(unlabelled[-1].image().pixels, fake.frame(5, fake.UNLABELLED))


def test_the_folder_may_lie_inside_the_one_named(tmp_path: Path) -> None:
    fake.make(tmp_path / "archive")
    assert len(SOURCE.open(tmp_path).records) == 3
    fake.make(tmp_path / "copy", "older")
    with pytest.raises(ProPLError, match=r"holds 2 folders with HMC_QU.xlsx or A4C.xlsx in them"):
        SOURCE.open(tmp_path)


def test_masks_and_table_that_disagree(tmp_path: Path) -> None:
    assert reasons(fake.make(tmp_path / "a", slices=2)) == {fake.LABELLED: "it has 2 masks, and 3 frames by the table"}
    untold = "has masks, but the table does not name their frames"
    assert reasons(fake.make(tmp_path / "b", last=None)) == {fake.LABELLED: untold}
    assert reasons(fake.make(tmp_path / "c", last="end")) == {fake.LABELLED: untold}


def test_masks_without_video_and_videos_beyond_their_end(tmp_path: Path) -> None:
    folder = fake.make(tmp_path, slices=7, last=8)
    late = SOURCE.open(folder).records[-1]
    assert late.name == "ES0001 _4CH_1_frame008"
    with pytest.raises(ProPLError, match="ends after frame 6, and frame 8 is wanted"):
        late.image()
    (folder / "HMC-QU" / "A4C" / f"{fake.LABELLED}.avi").unlink()
    assert reasons(folder) == {fake.LABELLED: "has masks but no video"}
    (folder / MAT).unlink()
    assert reasons(folder) == {fake.LABELLED: "has masks by the table, but no file of them"}


def test_files_that_do_not_belong_and_videos_that_come_twice(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    (folder / MASKS / "readme.txt").write_text("masks")
    (folder / "HMC-QU" / "A4C" / "notes.txt").write_text("videos")
    fake.write_video(folder / "more" / f"{fake.UNLABELLED}.avi")
    (folder / "HMC-QU" / "A2C" / f"{fake.TWO_CHAMBER}.avi").write_bytes(b"RIFF")
    told = {each.name: each.reason for each in SOURCE.open(folder, {"videos": "all"}).excluded}
    assert told.pop(fake.TWO_CHAMBER).startswith("cannot be read: ")
    assert told == {
        f"{MASKS}/readme.txt": "is not a file of masks of HMC-QU",
        "A4C/notes.txt": "is not a video of HMC-QU",
        f"more/{fake.UNLABELLED}.avi": "is there twice",
    }


def test_mask_files_that_cannot_be_used(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    fake.write_masks(folder / MAT, fake.masks(), variable="mask")
    untold = "its masks hold no variable 'predicted' of (frames, height, width)"
    assert reasons(folder) == {fake.LABELLED: untold}
    fake.write_masks(folder / MAT, fake.masks()[0])
    assert reasons(folder) == {fake.LABELLED: untold}
    # The first 128 bytes of a MATLAB 7.3 file: a text, the version 0x0200, and the mark of little-endian bytes.
    (folder / MAT).write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    assert "MATLAB 7.3" in reasons(folder)[fake.LABELLED]
    (folder / MAT).write_bytes(b"<html>not found</html>" * 20)
    assert reasons(folder)[fake.LABELLED].startswith("its masks cannot be read as a MATLAB file (")


def test_masks_of_several_values_are_refused(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    values = fake.masks()
    values[1, 200, 200] = 2
    fake.write_masks(folder / MAT, values)
    first, second, _ = (record.masks["myocardium"] for record in SOURCE.open(folder).records)
    assert first and second
    assert first().any()
    with pytest.raises(ProPLError, match=r"mask 2: holds 3 values"):
        second()


def test_a_mask_file_that_is_cut_short_is_told_when_it_is_read(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    (folder / MAT).write_bytes((folder / MAT).read_bytes()[:-100])
    read = SOURCE.open(folder).records[0].masks["myocardium"]
    assert read
    with pytest.raises(ProPLError, match="cannot be read") as caught:
        read()
    assert caught.value.where.endswith(MAT.name)


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    table = folder / "A4C.xlsx"
    fake.write_table(table, [["NAME", "Reference Frame"], ["ES0001", 1]])
    with pytest.raises(ProPLError, match="has no column ECHO"):
        SOURCE.open(folder)
    fake.write_table(table, [["ECHO", "SEG1"], ["ES0001", 1]])
    with pytest.raises(ProPLError, match="has no column Reference Frame"):
        SOURCE.open(folder)
    table.write_bytes(b"ECHO,Reference Frame\n")
    with pytest.raises(ProPLError, match="cannot be read as a table"):
        SOURCE.open(folder)


def test_a_table_without_openpyxl_tells_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake.make(tmp_path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        ProPLError, match=r"A4C.xlsx: cannot be read without openpyxl; pip install 'propl-monai\[video\]'"
    ):
        SOURCE.open(folder)


def test_the_folder_of_masks_is_needed(tmp_path: Path) -> None:
    folder = fake.make(tmp_path)
    (folder / MAT).unlink()
    (folder / MASKS).rmdir()
    with pytest.raises(ProPLError, match="is missing") as caught:
        SOURCE.open(folder)
    assert caught.value.where.endswith(MASKS)


def test_stretching_takes_the_nearest_pixel() -> None:
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(_stretch(mask, 2, 4), [[1, 1, 0, 0], [0, 0, 1, 1]])
    # Centres of three rows lie at 1/3, 1 and 5/3 of two: the middle one falls on the border and counts to the lower row.
    np.testing.assert_array_equal(_stretch(mask, 3, 2), [[1, 0], [0, 1], [0, 1]])


def test_facts() -> None:
    assert SOURCE.name == "HMC-QU" and SOURCE.tasks == ("myocardium",)
    assert SOURCE.options == {"videos": "labelled", "every": "1"}
    with pytest.raises(ProPLError, match="unknown value 'A2C'"):
        SOURCE.read(Path("."), videos="A2C")
