"""The table and the picture of areas."""

from __future__ import annotations

import csv
import io
from xml.etree import ElementTree

import numpy as np

from propl_monai.inference.cines.area_curve import phases_of, to_picture, to_table
from propl_monai.tasks import TASKS

BEAT = (1000 + 400 * np.cos(2 * np.pi * np.arange(40) / 20)).tolist()  # end-systoles in frames 11 and 31


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_a_row_for_each_frame_with_time_areas_and_phase() -> None:
    areas = {"left ventricle": BEAT, "left atrium": [5.0, None, *[7.5] * 38]}
    rows = table(to_table(areas, "mm", 0.02))
    assert [row["frame"] for row in rows] == [str(number) for number in range(1, 41)]
    assert rows[3]["seconds"] == "0.0600" and rows[3]["left_ventricle_mm2"] == str(BEAT[3])
    assert [row["left_atrium_mm2"] for row in rows[:3]] == ["5.0", "", "7.5"]
    assert {row["frame"]: row["phase"] for row in rows if row["phase"]} == {"21": "ED", "31": "ES"}


def test_without_times_and_without_a_ventricle() -> None:
    rows = table(to_table({"fetal head": [3.0, 4.0]}, "pixel"))
    assert rows == [
        {"frame": str(number), "seconds": "", "fetal_head_pixel2": str(area), "phase": ""}
        for number, area in ((1, 3.0), (2, 4.0))
    ]
    assert phases_of({"fetal head": BEAT}) == {}


def test_the_picture_has_a_line_for_each_stretch_and_marks_the_phases() -> None:
    broken = [*BEAT[:20], None, *BEAT[21:]]
    picture = to_picture({"left ventricle": BEAT, "left atrium": broken}, "mm", "a & b.dcm")
    root = ElementTree.fromstring(picture)
    names = [element.tag.rpartition("}")[2] for element in root]
    assert names.count("polyline") == 3
    texts = [element.text for element in root if element.text]
    assert {"a & b.dcm", "ED", "ES", "left ventricle", "left atrium", "1", "40"} <= set(texts)
    lines = [element.attrib["points"].split() for element in root if element.tag.endswith("polyline")]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights.index(min(heights)) == 0 and heights.index(max(heights)) == 10  # largest at the top, smallest below


def test_names_of_all_tasks_stand_inside_the_picture_and_apart() -> None:
    root = ElementTree.fromstring(to_picture({task.name: BEAT for task in TASKS}, "mm", "x"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    names = {element.text: element.attrib for element in root if element.text in {task.name for task in TASKS}}
    places = [(float(one["x"]), float(one["y"])) for one in names.values()]
    assert len(set(places)) == len(TASKS)
    assert all(0 < x < width - 95 and 0 < y < height - 30 for x, y in places)  # the longest name is some 90 wide


def test_an_empty_curve_makes_a_picture_too() -> None:
    for areas in ({"left ventricle": [None, None]}, {"left ventricle": [0.0, 0.0]}):
        assert ElementTree.fromstring(to_picture(areas, "pixel", "x")).tag.endswith("svg")
