"""annotations.xml, read by another parser and by CVAT's description of its masks."""

from __future__ import annotations

from pathlib import Path
from xml.dom import minidom

import numpy as np
from format_samples import SIZE, TASKS, drawn, filled

from propl_monai import tasks as registry
from propl_monai.inference.formats.registry import find_format

CVAT = find_format("cvat")


def decoded(element: minidom.Element, size: tuple[int, int]) -> np.ndarray:
    """Row by row in the box, background first."""
    left, top, width, height = (int(element.getAttribute(name)) for name in ("left", "top", "width", "height"))
    lengths = [int(word) for word in element.getAttribute("rle").split(",")]
    mask = np.zeros(size, bool)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask


def test_masks_names_and_colours(tmp_path: Path) -> None:
    frames = drawn()
    frames[0, 0] = False
    frames[0, 0, 4, 5] = True  # one pixel
    frames[1, 0] = True
    parts = CVAT.part(filled(tmp_path / "b (1).avi", frames))
    root = minidom.parseString(CVAT.whole(parts)).documentElement
    assert root is not None and root.tagName == "annotations"
    labels = {
        label.getElementsByTagName("name")[0].firstChild.data: label.getElementsByTagName("color")[0].firstChild.data
        for label in root.getElementsByTagName("label")
    }
    assert tuple(labels) == registry.NAMES and labels["left atrium"] == "#009e73"
    images = root.getElementsByTagName("image")
    assert [image.getAttribute("id") for image in images] == ["0", "1", "2"]
    for number, (image, frame) in enumerate(zip(images, frames, strict=True), start=1):
        assert image.getAttribute("name") == f"deep er/b (1)_frame_000{number}.png"
        assert (image.getAttribute("height"), image.getAttribute("width")) == tuple(map(str, SIZE))
        found = {mask.getAttribute("label"): decoded(mask, SIZE) for mask in image.getElementsByTagName("mask")}
        for task, mask in zip(TASKS, frame, strict=True):
            name = registry.find(task).name
            assert (name in found) == mask.any()
            np.testing.assert_array_equal(found.get(name, np.zeros(SIZE, bool)), mask)


def test_odd_names(tmp_path: Path) -> None:
    name = 'a<b>&"c"\n\x01\udce9'
    masks = filled(tmp_path / f"{name}.png", drawn(1, ["LA"]), ["LA"], name=name)
    root = minidom.parseString(CVAT.whole(CVAT.part(masks))).documentElement
    assert root is not None
    assert root.getElementsByTagName("image")[0].getAttribute("name") == 'a<b>&"c"\n\\x01\\udce9.png'
