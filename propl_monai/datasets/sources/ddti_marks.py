"""The outlines in a case file of DDTI, as JSON in XML.

`<case>` holds `<mark><image>1</image><svg>[...]</svg></mark>` for each outlined picture; there may be several for one.
`<svg>` is JSON, not SVG: a list of regions in pixels, each
`{"points": [{"x": 164, "y": 31}, ...], "annotation": {}, "regionType": "freehand"}`.

XML is read with the standard library, which expands entities; they need a document type, and a file that declares one is
refused, so that no further package is needed to read it safely.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from skimage.draw import polygon

from propl_monai.errors import ProPLError, first_line
from propl_monai.images import image_size

MAX_XML_BYTES = 1_000_000  # the published ones have some 3000
FARTHEST = 100_000.0  # pixels
_COORDINATE = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_POINT = re.compile(rf'\{{\s*"x":\s*({_COORDINATE})\s*,\s*"y":\s*({_COORDINATE})\s*\}}', re.ASCII)

Outline = tuple[tuple[float, float], ...]  # (x, y) in pixels, at least three


@dataclass
class Marks:
    """The marks on one picture.

    Attributes:
        outlines: closed, of all its marks.
        cut: whether one of them is cut off; what was before the cut is in `outlines`.
        not_outlines: how many regions are arrows or have fewer than three points.
    """

    outlines: list[Outline] = field(default_factory=list)
    cut: bool = False
    not_outlines: int = 0


def read_marks(path: Path) -> dict[int, Marks]:
    """The marks of a case file, by the number of the picture."""
    found: dict[int, Marks] = {}
    for mark in _parse(path).iter("mark"):
        number = (mark.findtext("image") or "").strip()
        if not re.fullmatch(r"\d+", number, re.ASCII):
            raise ProPLError(path, "has a mark that does not say of which picture", "add its number in <image>")
        marks = found.setdefault(int(number), Marks())
        regions, cut = _read_regions(path, (mark.findtext("svg") or "").strip())
        marks.cut |= cut
        for region in regions:
            outline = _read_outline(path, region)
            if outline:
                marks.outlines.append(outline)
            else:
                marks.not_outlines += 1
    return found


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > MAX_XML_BYTES:
        raise ProPLError(path, f"has more than {MAX_XML_BYTES:,} bytes", "download it again")
    # Reports may be in any alphabet and are not used; outlines are ASCII, whatever is replaced around them. From text the
    # parser takes no other encoding, so that it sees the same letters as the search for a document type.
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    if "<!DOCTYPE" in text.upper():
        raise ProPLError(path, "declares a document type, which an outline does not need", "download it again")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ProPLError(path, f"is not XML ({first_line(error)})", "download it again") from error


def _read_regions(path: Path, text: str) -> tuple[list[Any], bool]:
    """The regions of an `<svg>`, and whether it is cut off; then the last one holds the points before the cut."""
    if not text:
        return [], False
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        # Of a text that is only cut, all is sound up to the word that the cut goes through.
        if not text.startswith("[") or any(sign in text[error.pos :] for sign in "[]{}:"):
            raise ProPLError(path, "has an <svg> that is damaged before its end", "download it again") from error
        return _read_cut_regions(text), True
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise ProPLError(path, "has an <svg> that no outline needs", "download it again") from error
    if not isinstance(content, list):
        raise ProPLError(path, "has an <svg> that is not a list of regions", "download it again")
    return content, False


def _read_cut_regions(text: str) -> list[Any]:
    decoder = json.JSONDecoder()
    regions = []
    rest = text.removeprefix("[").lstrip()
    while rest:
        try:
            region, end = decoder.raw_decode(rest)
        except json.JSONDecodeError:  # the one that is cut
            break
        regions.append(region)
        rest = rest[end:].lstrip(", \t\r\n")
    points = [{"x": float(x), "y": float(y)} for x, y in _POINT.findall(rest)]
    return [*regions, {"points": points}] if len(points) >= 3 else regions


def _read_outline(path: Path, region: Any) -> Outline | None:
    """The closed outline of a region; None when it is an arrow, or fewer than three points."""
    try:
        points = tuple((float(point["x"]), float(point["y"])) for point in region["points"])
        kind = region.get("regionType")
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
        raise ProPLError(path, "has a region without a list of points x and y", "download it again") from error
    if not all(abs(value) < FARTHEST for point in points for value in point):
        raise ProPLError(path, "has a point that is far from any picture", "download it again")
    return points if kind != "arrow" and len(set(points)) >= 3 else None


def draw(path: Path, outlines: tuple[Outline, ...]) -> np.ndarray:
    """The union of the outlines, bool `(H, W)` of the picture's size; what leaves the picture is clipped."""
    mask = np.zeros(image_size(path), bool)
    for outline in outlines:
        columns, rows = np.array(outline).T
        mask[polygon(rows, columns, mask.shape)] = True
    if not mask.any():
        raise ProPLError(path, "lies outside all of its outlines", "leave it out, or outline it again")
    return mask
