"""COCO: one `coco.json` for the folder, masks as compressed run lengths, which are exact and keep holes.

One annotation for each picture and task with at least one pixel. Fields: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from propl_monai import tasks as registry
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.masks import Masks


class Coco(Format):
    """See the module."""

    name, package, shared = "coco", "pycocotools.mask", "coco.json"

    def part(self, masks: Masks) -> list[Any]:
        """The pictures: file name, size, and per task run lengths, area and box (x, y, width, height) in pixels."""
        codec = self.require()
        pictures = []
        for name, frame in zip(masks.picture_names(), masks, strict=True):
            found = []
            for task, mask in zip(masks.tasks, frame, strict=True):
                if mask.any():
                    coded = codec.encode(np.asfortranarray(mask, np.uint8))
                    box = [float(length) for length in codec.toBbox(coded)]
                    found.append([task.name, coded["counts"].decode("ascii"), int(codec.area(coded)), box])
            shown = name.encode("utf-8", "backslashreplace").decode()  # no JSON reader but Python's takes other names
            pictures.append({"file_name": shown, "height": masks.size[0], "width": masks.size[1], "found": found})
        return pictures

    def whole(self, parts: Sequence[Any]) -> bytes:
        """Ids count from 1 in the order of the parts; the categories are all tasks, so that their ids never change."""
        ids = {name: number for number, name in enumerate(registry.known_names(), start=1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, part in enumerate(parts, start=1):
            found = part["found"]
            images.append({"id": number, **{key: value for key, value in part.items() if key != "found"}})
            for task, counts, area, box in found:
                place = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[task]}
                coded = {"size": [part["height"], part["width"]], "counts": counts}
                annotations.append({**place, "segmentation": coded, "area": area, "bbox": box, "iscrowd": 0})
        categories = [
            {"id": ids[task.name], "name": task.name, "supercategory": task.organ, "color": list(task.colour)}
            for task in registry.known()
        ]
        content = {
            "info": {"description": "masks predicted by propl_monai"},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        return (json.dumps(content) + "\n").encode()
