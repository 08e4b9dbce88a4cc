"""CVAT: one `annotations.xml` for the folder, "CVAT for images 1.1", with a mask for each picture and task.

Masks are exact and keep holes; they open from CVAT 2.3 on. Fields: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from propl_monai import tasks as registry
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.masks import Masks

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML 1.0 cannot hold


class Cvat(Format):
    """See the module."""

    name, shared = "cvat", "annotations.xml"

    def part(self, masks: Masks) -> list[Any]:
        """The pictures: name, size, and per task the box (left, top, width, height) with its run lengths."""
        pictures = []
        for name, frame in zip(masks.picture_names(), masks, strict=True):
            found = [
                [task.name, *_boxed_runs(mask)] for task, mask in zip(masks.tasks, frame, strict=True) if mask.any()
            ]
            shown = _NO_XML.sub(lambda one: ascii(one[0])[1:-1], name)
            pictures.append({"name": shown, "height": masks.size[0], "width": masks.size[1], "found": found})
        return pictures

    def whole(self, parts: Sequence[Any]) -> bytes:
        """Labels are all tasks, in their colours."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        for key, value in (("name", "propl_monai"), ("size", str(len(parts))), ("mode", "annotation")):
            ElementTree.SubElement(task, key).text = value
        labels = ElementTree.SubElement(task, "labels")
        for one in registry.known():
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = one.name
            ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*one.colour)
            ElementTree.SubElement(label, "attributes")
        for number, part in enumerate(parts):
            place = {"id": number, "name": part["name"], "width": part["width"], "height": part["height"]}
            image = ElementTree.SubElement(root, "image", {key: str(value) for key, value in place.items()})
            for name, left, top, width, height, runs in part["found"]:
                box = {"left": left, "top": top, "width": width, "height": height, "z_order": 0}
                fixed = {"label": name, "source": "auto", "occluded": "0", "rle": ", ".join(map(str, runs))}
                ElementTree.SubElement(image, "mask", fixed | {key: str(value) for key, value in box.items()})
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _boxed_runs(mask: np.ndarray) -> tuple[int, int, int, int, list[int]]:
    """Box of the target and, row by row in it, lengths of background and target in turn, background first."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    inner = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    flat = inner.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return left, top, inner.shape[1], inner.shape[0], [0] * bool(flat[0]) + runs
