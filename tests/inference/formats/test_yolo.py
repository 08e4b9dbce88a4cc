"""YOLO labels filled again by two other libraries, by the rules of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_samples import SIZE, TASKS, drawn, filled, written
from PIL import Image, ImageDraw
from skimage.measure import points_in_poly

from propl_monai import tasks as registry
from propl_monai.errors import ProPLError
from propl_monai.inference.formats.registry import find_format

YOLO = find_format("yolo")


def polygons(path: Path) -> list[tuple[int, np.ndarray]]:
    """Class and corners (N, 2), as parts of width and height."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(int(line[0]), np.array(line[1:], float).reshape(-1, 2)) for line in lines]


def test_a_line_for_each_part_of_each_task(tmp_path: Path) -> None:
    """By the centres of pixels, in scikit-image's words: exact."""
    frames = drawn()
    paths = written(YOLO.files(filled(tmp_path / "b (1).avi", frames)), tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"deep er/b (1)_frame_000{number}.txt" for number in (1, 2, 3)
    ]
    classes = {registry.find(task).name: index for index, task in enumerate(TASKS)}
    centres = (np.argwhere(np.ones(SIZE)) + 0.5)[:, ::-1] / SIZE[::-1]
    for path, frame in zip(paths, frames, strict=True):
        found = np.zeros(frame.shape, bool)
        for number, corners in polygons(path):
            assert corners.min() >= 0 and corners.max() <= 1
            found[classes[registry.NAMES[number]]] |= points_in_poly(centres, corners).reshape(SIZE)
        np.testing.assert_array_equal(found, frame)


def test_corners_cut_to_whole_pixels_fill_the_mask_too(tmp_path: Path) -> None:
    """As Ultralytics does, with OpenCV; Pillow stands in for it, and fills the same pixels: exact."""
    frames = drawn(1, TASKS[:1])
    (path,) = written(YOLO.files(filled(tmp_path / "a.png", frames, TASKS[:1])), tmp_path)
    found = Image.new("1", SIZE[::-1])
    for _, corners in polygons(path):
        ImageDraw.Draw(found).polygon([tuple(corner) for corner in (corners * SIZE[::-1]).astype(int).tolist()], fill=1)
    np.testing.assert_array_equal(np.asarray(found), frames[0, 0])


def test_numbers_of_classes_are_those_of_all_tasks(tmp_path: Path) -> None:
    assert YOLO.whole([]).decode().splitlines() == list(registry.NAMES)
    for task in registry.TASKS:
        (content,) = YOLO.files(filled(tmp_path / "a.png", np.ones((1, 1, 4, 6), bool), [task.code])).values()
        assert int(content.split()[0]) == registry.NAMES.index(task.name)


def test_a_picture_without_a_target_has_an_empty_file(tmp_path: Path) -> None:
    assert YOLO.files(filled(tmp_path / "a.png", np.zeros((1, 1, 4, 6), bool), ["LA"], "a")) == {"a.txt": b""}


def test_the_name_of_the_list_of_classes_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"Classes.png: its labels would overwrite classes.txt of --format yolo"):
        YOLO.check(tmp_path / "Classes.png", "Classes")
    YOLO.check(tmp_path / "classes.png", "deep/classes")
