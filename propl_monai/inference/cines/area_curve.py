"""The area of each target from frame to frame of a cine: a table, and a small picture (SVG) that any browser shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from propl_monai import tasks as registry
from propl_monai.inference.cines.phases import find_beats

VENTRICLE = "left ventricle"
PHASES = ("ED", "ES")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 220, 60, 34, 26, 110  # of the picture, and its margins
Areas = Mapping[str, Sequence[float | None]]  # by task; None in frames without a mask


def phases_of(areas: Areas) -> dict[int, str]:
    """Frames (from 1) that are an end-diastole ("ED") or end-systole ("ES"), where the left ventricle is among the tasks."""
    beats = find_beats(areas.get(VENTRICLE, []))
    return {frame: name for beat in beats for frame, name in zip((beat.diastole, beat.systole), PHASES, strict=True)}


def to_table(areas: Areas, unit: str, seconds_per_frame: float | None = None) -> bytes:
    """A CSV with one row a frame: its number from 1, seconds from the first, the area of each task, and the phase.

    Args:
        areas: in the square of `unit`.
        unit: "mm" or "pixel".
        seconds_per_frame: None when unknown; the column is then empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    square = f"{unit}2"
    slugs = [f"{registry.find(task).slug}_{square}" for task in areas]
    writer.writerow(["frame", "seconds", *slugs, "phase"])
    phases = phases_of(areas)
    for number, row in enumerate(zip(*areas.values(), strict=True), start=1):
        seconds = "" if seconds_per_frame is None else f"{(number - 1) * seconds_per_frame:.4f}"
        writer.writerow([number, seconds, *("" if area is None else area for area in row), phases.get(number, "")])
    return stream.getvalue().encode()


def to_picture(areas: Areas, unit: str, title: str) -> bytes:
    """An SVG with one line a task, from area 0 up, and marks at the phases of the left ventricle; see `to_table`."""
    count = max((len(each) for each in areas.values()), default=0)
    largest = max((area for each in areas.values() for area in each if area is not None), default=0.0) or 1.0
    right, low = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(number: float) -> float:
        return LEFT + (right - LEFT) * (number - 1) / max(count - 1, 1)

    def y(area: float) -> float:
        return low - (low - TOP) * area / largest

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', _text(LEFT, 16, title)]
    parts.append(f'<path d="M{LEFT} {TOP}V{low}H{right}" fill="none" stroke="#888"/>')
    parts += [_text(LEFT - 6, y(share * largest) + 4, f"{share * largest:.4g}", "end") for share in (0, 0.5, 1)]
    parts += [_text(x(number), HEIGHT - 16, str(number), "middle") for number in sorted({1, count})]
    parts.append(_text((LEFT + right) / 2, HEIGHT - 4, f"frame; area in {unit}²", "middle"))
    for frame, phase in phases_of(areas).items():
        parts.append(f'<path d="M{x(frame):.1f} {TOP}V{low}" stroke="#888" stroke-dasharray="3 3"/>')
        parts.append(_text(x(frame), TOP + 8, phase, "middle"))
    for index, (task, each) in enumerate(areas.items()):
        colour = "#{:02x}{:02x}{:02x}".format(*registry.find(task).colour)
        for line in _lines(each):
            points = " ".join(f"{x(number):.1f},{y(area):.1f}" for number, area in line)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(right + 10, TOP + 8 + 16 * index, task, colour=colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, *parts, "</svg>", ""]).encode()


def _lines(areas: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches of frames with a mask, as (number, area); a frame without one breaks the line."""
    lines: list[list[tuple[int, float]]] = [[]]
    for number, area in enumerate(areas, start=1):
        if area is not None:
            lines[-1].append((number, area))
        elif lines[-1]:
            lines.append([])
    return [line for line in lines if line]


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
