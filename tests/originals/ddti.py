"""Makes a tiny DDTI in the documented layout: one flat folder of case files with JSON outlines, and JPEG pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (60, 90)  # height, width
_FIELDS = "age sex composition echogenicity margins calcifications tirads reportbacaf reporteco".split()


def region(left: float, top: float, right: float, bottom: float, kind: str = "freehand") -> dict[str, Any]:
    """A rectangle as a region; edges at halves of pixels, such as 9.5, leave no doubt about which pixels are inside."""
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return {"points": [{"x": x, "y": y} for x, y in corners], "annotation": {}, "regionType": kind}


def arrow() -> dict[str, Any]:
    return {"points": [{"x": 80, "y": 50}, {"x": 40, "y": 20}], "annotation": {}, "regionType": "arrow"}


def write_case(home: Path, number: int, marks: Sequence[tuple[object, str]]) -> None:
    """Write a case file.

    Args:
        home: the flat folder.
        number: of the case.
        marks: number of the picture and text of the `<svg>` of each.
    """
    home.mkdir(parents=True, exist_ok=True)
    fields = "".join(f"<{name}></{name}>" for name in _FIELDS)
    body = "".join(f"<mark><image>{image}</image><svg>{svg}</svg></mark>" for image, svg in marks)
    (home / f"{number}.xml").write_text(f"<case><number>{number}</number>{fields}{body}</case>")


def write_picture(home: Path, name: str, seed: int) -> None:
    """Write a picture; the same seed gives the same bytes."""
    home.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / f"{name}.jpg")


def make(folder: Path) -> Path:
    """Write cases 2 to 9 and the picture of case 11.

    2 one region; 3 two regions in one mark and a third in another; 4 two pictures, the second with an empty outline; 5 cut
    behind its last point; 6 cut within a point of its second region; 7 an outline and an arrow; 8 no picture; 9 an outline
    that leaves the picture; 11 no case file.
    """
    home = folder / "DDTI"
    two = [region(9.5, 9.5, 29.5, 19.5), region(39.5, 9.5, 49.5, 19.5)]
    write_case(home, 2, [(1, json.dumps(two[:1]))])
    write_case(home, 3, [(1, json.dumps(two)), (1, json.dumps([region(59.5, 9.5, 69.5, 19.5)]))])
    write_case(home, 4, [(1, json.dumps(two[:1])), (2, "")])
    write_case(home, 5, [(1, json.dumps(two[:1]).removesuffix('eehand"}]'))])
    write_case(home, 6, [(1, json.dumps(two).partition(', {"x": 39.5, "y": 19.5}]')[0] + ', {"x": 39.')])
    write_case(home, 7, [(1, json.dumps([two[0], arrow()]))])
    write_case(home, 8, [(1, json.dumps(two))])
    write_case(home, 9, [(1, json.dumps([region(-10.5, -5.5, 4.5, 3.5)]))])
    for seed, name in enumerate(("2_1", "3_1", "4_1", "4_2", "5_1", "6_1", "7_1", "9_1", "11_1")):
        write_picture(home, name, seed)
    return home
