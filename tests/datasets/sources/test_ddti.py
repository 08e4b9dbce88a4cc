"""DDTI: outlines from JSON in XML, cut ones, arrows, repeated pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from originals.ddti import SIZE, arrow, make, region, write_case, write_picture

from propl_monai.datasets.sources.base import Reading
from propl_monai.datasets.sources.ddti import SOURCE, TASK
from propl_monai.errors import ProPLError

OUTLINE = json.dumps([region(9.5, 9.5, 29.5, 19.5)])


def block(*places: tuple[int, int, int, int]) -> np.ndarray:
    """Rows `top` to `bottom` - 1 and columns `left` to `right` - 1 of each (left, top, right, bottom)."""
    mask = np.zeros(SIZE, bool)
    for left, top, right, bottom in places:
        mask[top:bottom, left:right] = True
    return mask


def mask_of(reading: Reading, name: str) -> np.ndarray | None:
    read = {record.name: record.masks[TASK] for record in reading.records}[name]
    return read() if read else None


def told(reading: Reading) -> list[tuple[str, str]]:
    return sorted((each.name, each.reason) for each in reading.excluded)


def test_what_is_listed(tmp_path: Path) -> None:
    make(tmp_path)
    reading = SOURCE.open(tmp_path)
    assert [record.name for record in reading.records] == ["2_1", "3_1", "4_1", "4_2", "5_1", "6_1", "7_1", "9_1"]
    assert [record.group for record in reading.records] == ["2", "3", "4", "4", "5", "6", "7", "9"]
    assert all(record.image().pixels.shape == (*SIZE, 3) and record.split is None for record in reading.records)
    assert told(reading) == [
        ("11_1", "its case file is missing"),
        ("7_1, region", "is no outline (an arrow or a stroke)"),
        ("8_1", "its picture is missing"),
    ]
    assert reading.found == {"case files": 8, "pictures": 9, "cut outlines": 2, "repeated pictures": 0}
    assert reading.found.keys() == SOURCE.holds.keys()


ONE = (10, 10, 30, 20)
DRAWN = {
    "2_1": [ONE],
    "3_1": [ONE, (40, 10, 50, 20), (60, 10, 70, 20)],  # two regions of one mark and one of another
    "5_1": [ONE],  # cut behind its last point
    "7_1": [ONE],  # the arrow is not drawn
    "9_1": [(0, 0, 5, 4)],  # clipped to the picture
}


@pytest.mark.parametrize("name", DRAWN)
def test_outlines_become_masks(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    assert np.array_equal(mask_of(SOURCE.open(tmp_path), name), block(*DRAWN[name]))


def test_an_outline_that_is_cut_within_a_point_is_closed(tmp_path: Path) -> None:
    make(tmp_path)
    mask = mask_of(SOURCE.open(tmp_path), "6_1")
    assert mask is not None
    # The second region keeps three of its corners: the triangle above the diagonal from top left to bottom right.
    triangle = np.triu(np.ones((10, 10), bool))
    assert np.array_equal(mask[:, :35], block(ONE)[:, :35])
    assert not (mask[10:20, 40:50] & ~triangle).any() and mask[10:20, 40:50].sum() >= triangle.sum() - 10
    assert mask[:, 35:].sum() == mask[10:20, 40:50].sum()


def test_cut_outlines_may_be_left_out(tmp_path: Path) -> None:
    make(tmp_path)
    reading = SOURCE.open(tmp_path, {"truncated": "drop"})
    assert [record.name for record in reading.records] == ["2_1", "3_1", "4_1", "4_2", "7_1", "9_1"]
    reason = "its outline is cut off in the case file"
    assert {("5_1", reason), ("6_1", reason)} < set(told(reading))
    assert reading.found["cut outlines"] == 2
    with pytest.raises(ProPLError, match="option truncated: unknown value 'keep'"):
        SOURCE.open(tmp_path, {"truncated": "keep"})


@pytest.mark.parametrize("end", range(len(OUTLINE) - 1))
def test_an_outline_may_be_cut_anywhere(tmp_path: Path, end: int) -> None:
    write_case(tmp_path, 2, [(1, OUTLINE[: end + 1])])
    write_picture(tmp_path, "2_1", 0)
    reading = SOURCE.open(tmp_path)
    mask = mask_of(reading, "2_1")
    points = OUTLINE[: end + 1].count("}")  # all points stand before any other closing brace
    assert reading.found["cut outlines"] == 1
    assert (mask is None) == (points < 3)
    if mask is not None:
        assert not (mask & ~block(ONE)).any()
    if points >= 4:
        assert np.array_equal(mask, block(ONE))


@pytest.mark.parametrize("svg", ["", "  \n", "[]", json.dumps([arrow()]), json.dumps([{"points": []}])])
def test_no_outline_is_unlabelled(tmp_path: Path, svg: str) -> None:
    write_case(tmp_path, 2, [(1, svg)])
    write_picture(tmp_path, "2_1", 0)
    assert mask_of(SOURCE.open(tmp_path), "2_1") is None


def test_a_picture_without_a_mark_is_unlabelled(tmp_path: Path) -> None:
    home = make(tmp_path)
    write_picture(home, "2_3", 77)
    assert mask_of(SOURCE.open(home), "2_3") is None and mask_of(SOURCE.open(home), "4_2") is None


def test_an_outline_outside_of_the_picture(tmp_path: Path) -> None:
    write_case(tmp_path, 2, [(1, json.dumps([region(100.5, 9.5, 120.5, 19.5)]))])
    write_picture(tmp_path, "2_1", 0)
    with pytest.raises(ProPLError, match=r"2_1.jpg: lies outside all of its outlines"):
        mask_of(SOURCE.open(tmp_path), "2_1")


def test_equal_files_are_kept_once_and_their_cases_are_one_group(tmp_path: Path) -> None:
    for case in (2, 3, 4, 5):
        write_case(tmp_path, case, [(1, OUTLINE if case != 2 else ""), (2, OUTLINE)])
        write_picture(tmp_path, f"{case}_2", 100 + case)
    for name in ("2_1", "3_1", "5_1"):
        write_picture(tmp_path, name, 1)
    write_picture(tmp_path, "4_1", 103)  # links case 4 to 3 through its second picture
    reading = SOURCE.open(tmp_path)
    # 2_1 comes first but has no outline
    assert told(reading) == [
        ("2_1", "is the same picture as 3_1"),
        ("4_1", "is the same picture as 3_2"),
        ("5_1", "is the same picture as 3_1"),
    ]
    assert [(each.name, each.group) for each in reading.records] == [
        ("2_2", "2"),
        ("3_1", "2"),
        ("3_2", "2"),
        ("4_2", "2"),
        ("5_2", "2"),
    ]
    assert reading.found["repeated pictures"] == 3


def test_the_known_repeats_are_left_out_whatever_their_bytes(tmp_path: Path) -> None:
    for seed, case in enumerate((150, 233, 323, 396)):
        write_case(tmp_path, case, [(1, OUTLINE), (2, OUTLINE)])
        write_picture(tmp_path, f"{case}_1", seed)
        write_picture(tmp_path, f"{case}_2", seed + 10)
    reading = SOURCE.open(tmp_path)
    assert told(reading) == [("233_2", "is the same picture as 150_1"), ("323_1", "is the same picture as 150_1")]
    assert {each.name: each.group for each in reading.records} == {
        "150_1": "150",
        "150_2": "150",
        "233_1": "150",
        "323_2": "150",
        "396_1": "396",  # 353_2, which it repeats, is not here
        "396_2": "396",
    }


def test_empty_files_are_not_the_same_picture(tmp_path: Path) -> None:
    write_case(tmp_path, 2, [(1, OUTLINE), (2, OUTLINE)])
    for name in ("2_1.jpg", "2_2.jpg"):
        (tmp_path / name).touch()
    reading = SOURCE.open(tmp_path)
    assert len(reading.records) == 2
    with pytest.raises(ProPLError, match="is empty"):
        reading.records[0].image()


LAUGHS = '<!DOCTYPE case [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><case><number>&b;</number></case>'
BAD_CASES: dict[str, tuple[bytes, str]] = {
    "not XML": (b"<case>", "is not XML"),
    "no text": (b"", "is not XML"),
    "entities": (LAUGHS.encode(), "declares a document type"),
    "entities in UTF-16": (LAUGHS.encode("utf-16"), "is not XML"),
    "too large": (b"<case>" + b" " * 1_000_001 + b"</case>", "has more than 1,000,000 bytes"),
    "no picture": (b"<case><mark><svg>[]</svg></mark></case>", "has a mark that does not say of which picture"),
    "no number": (b"<case><mark><image>a</image><svg/></mark></case>", "has a mark that does not say"),
}
BAD_SVG = {
    "an object": ("{}", "not a list of regions"),
    "text": ("freehand", "damaged before its end"),
    "region is a number": ("[1]", "region without a list of points"),
    "no points": ('[{"regionType": "freehand"}]', "region without a list of points"),
    "no y": ('[{"points": [{"x": 1}]}]', "region without a list of points"),
    "words": ('[{"points": [{"x": "left", "y": 1}]}]', "region without a list of points"),
    "not finite": ('[{"points": [{"x": NaN, "y": 1}]}]', "far from any picture"),
    "far": ('[{"points": [{"x": 1e300, "y": 1}]}]', "far from any picture"),
    "too large for a float": (f'[{{"points": [{{"x": 1{"0" * 400}, "y": 1}}]}}]', "region without a list of points"),
    "too many digits": (f'[{{"points": [{{"x": {"1" * 5000}, "y": 1}}]}}]', "no outline needs"),
    "too deep": ("[" * 100_000 + "]" * 100_000, "no outline needs"),
    "damaged": (OUTLINE.replace('"y"', "y", 1), "damaged before its end"),
    "damaged and cut": (OUTLINE.replace('"y"', "y", 1)[:-9], "damaged before its end"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_CASES.values(), ids=list(BAD_CASES))
def test_bad_case_files_cost_their_pictures_only(tmp_path: Path, content: bytes, reason: str) -> None:
    home = make(tmp_path)
    (home / "3.xml").write_bytes(content)
    reading = SOURCE.open(home)
    assert "3_1" not in {record.name for record in reading.records} and len(reading.records) == 7
    reasons = dict(told(reading))
    assert reasons["3.xml"].startswith(reason) and reasons["3_1"] == "its case file cannot be read"


@pytest.mark.parametrize(("svg", "reason"), BAD_SVG.values(), ids=list(BAD_SVG))
def test_bad_outlines_cost_their_case_only(tmp_path: Path, svg: str, reason: str) -> None:
    home = make(tmp_path)
    write_case(home, 3, [(1, svg)])
    reading = SOURCE.open(home)
    assert "3_1" not in {record.name for record in reading.records} and len(reading.records) == 7
    assert reason in dict(told(reading))["3.xml"]


def test_reports_in_other_alphabets_do_not_matter(tmp_path: Path) -> None:
    home = make(tmp_path)
    text = (home / "2.xml").read_text().replace("<reporteco>", "<reporteco>n\u00f3dulo")
    (home / "2.xml").write_bytes(text.encode("latin-1"))
    assert np.array_equal(mask_of(SOURCE.open(home), "2_1"), block(ONE))


def test_what_does_not_belong_is_told(tmp_path: Path) -> None:
    home = make(tmp_path)
    (home / "notes.txt").write_text("x")
    (home / "02.xml").write_text("<case/>")
    (home / "99.xml").write_text("<case/>")
    (home / "Thumbs.db").write_text("x")
    reasons = dict(told(SOURCE.open(home)))
    assert reasons["notes.txt"] == "is no file of DDTI's layout" and "Thumbs.db" not in reasons
    assert reasons["2.xml"] == "has the number of 02.xml"
    assert reasons["99.xml"] == "names no picture, and none is there"


def test_folders_that_are_not_it(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"holds no folder with case files such as 1.xml .*: it is empty"):
        SOURCE.open(tmp_path)
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(ProPLError, match="holds 2 folders with case files"):
        SOURCE.open(tmp_path)
    assert len(SOURCE.open(tmp_path / "a").records) == 8
