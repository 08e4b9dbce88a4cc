"""coco.json, read without pycocotools: run lengths decoded here, and by the description of the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import SIZE, TASKS, drawn, filled

from propl_monai import tasks as registry
from propl_monai.inference.formats.registry import find_format

pytest.importorskip("pycocotools")
COCO = find_format("coco")


def decoded(segmentation: dict[str, Any]) -> np.ndarray:
    """Column by column, background first; each length in groups of five bits, from the third on less the one before last."""
    lengths: list[int] = []
    place = 0
    text = segmentation["counts"]
    while place < len(text):
        value = shift = 0
        while True:
            bits = ord(text[place]) - 48
            value |= (bits & 31) << shift
            shift, place = shift + 5, place + 1
            if not bits & 32:
                break
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    height, width = segmentation["size"]
    return flat.reshape(width, height).T


def test_masks_names_and_ids(tmp_path: Path) -> None:
    frames = drawn()
    still = drawn(1, TASKS[:1], (9, 14))
    parts = COCO.part(filled(tmp_path / "b (1).avi", frames))
    parts += COCO.part(filled(tmp_path / "c.bmp", still, TASKS[:1], name="c"))
    content = json.loads(COCO.whole(parts))
    names = [f"deep er/b (1)_frame_000{number}.png" for number in (1, 2, 3)] + ["c.bmp"]
    assert [(one["id"], one["file_name"]) for one in content["images"]] == list(enumerate(names, start=1))
    assert [(one["height"], one["width"]) for one in content["images"]] == [SIZE] * 3 + [(9, 14)]
    assert [(one["id"], one["name"]) for one in content["categories"]] == list(enumerate(registry.NAMES, start=1))
    assert content["categories"][2]["color"] == list(registry.find("LA").colour)
    found = {(one["image_id"], one["category_id"]): one for one in content["annotations"]}
    assert len(found) == len(content["annotations"]) == 9  # no target of the second task in the last frame
    assert [one["id"] for one in content["annotations"]] == list(range(1, 10))
    expected = {(1 + n, 1 + registry.NAMES.index(registry.find(task).name)): frames[n, k]
                for n in range(3) for k, task in enumerate(TASKS)}  # fmt: skip
    expected[4, 3] = still[0, 0]
    for key, mask in expected.items():
        if not mask.any():
            assert key not in found
            continue
        one = found[key]
        np.testing.assert_array_equal(decoded(one["segmentation"]), mask)
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert one["area"] == mask.sum() and one["bbox"] == box and one["iscrowd"] == 0


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    masks = filled(tmp_path / "a\udce9.png", drawn(1, ["LA"]), ["LA"], name="a\udce9")
    (image,) = json.loads(COCO.whole(COCO.part(masks)))["images"]
    assert image["file_name"] == "a\\udce9.png"
