"""One phantom: its anatomy is drawn, insonified and shown as a picture, with a mask for each of its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft

from propl_monai.datasets.phantoms.anatomy import paint_breast, paint_heart, paint_obstetric, paint_thyroid
from propl_monai.datasets.phantoms.physics import Canvas, Grey, Mask, Probe, insonify, scan_convert
from propl_monai.errors import ProPLError, unknown

ANATOMIES: dict[str, tuple[str, ...]] = {
    "small parts": ("breast cancer", "thyroid gland", "thyroid nodule"),
    "obstetric": ("fetal head", "ovarian tumor"),
    "heart": ("left atrium", "left ventricle", "myocardium"),
}
SMALLEST, LARGEST = 64, 1024


@dataclass(frozen=True)
class Phantom:
    """One picture.

    Attributes:
        image: (size, size), 0-255, black outside the sector.
        masks: task name -> (size, size).
        pixel_size_mm: edge of a pixel.
    """

    image: Grey
    masks: dict[str, Mask]
    pixel_size_mm: float


@dataclass(frozen=True)
class _Panel:
    """One sector of the picture; `left` and `top` (mm) place the middle of its upper edge."""

    probe: Probe
    paint: Callable[[Canvas, np.random.Generator], None]
    left: float
    top: float


def make_phantom(anatomy: str, patient: int, view: int, size: int = 192, seed: int = 0) -> Phantom:
    """Draw one picture; it depends on nothing but the arguments.

    Args:
        anatomy: a key of `ANATOMIES`.
        patient: number from 0; shapes and sizes belong to it.
        view: number from 0; speckle, gain and the position of the probe belong to it.
        size: edge of the square picture in pixels.
        seed: number from 0.
    """
    check_settings(size, seed=seed, patient=patient, view=view)
    if anatomy not in ANATOMIES:
        raise unknown("phantom", "anatomy", anatomy, ANATOMIES)
    key = [seed, list(ANATOMIES).index(anatomy), patient]
    field_mm, panels = _panels(anatomy, np.random.default_rng([*key, 1]))
    pixel = field_mm / size
    across, down = np.meshgrid((np.arange(size) + 0.5) * pixel, (np.arange(size) + 0.5) * pixel)
    image = np.zeros((size, size))
    masks: dict[str, Mask] = {}
    for number, panel in enumerate(panels, 2):
        # Numbers from 1 keep the streams apart: NumPy takes a list of seeds and the same list with a 0 added for one.
        shapes, speckle = np.random.default_rng([*key, number]), np.random.default_rng([*key, number, 1 + view])
        canvas = _canvas(panel.probe, field_mm, size, speckle)
        panel.paint(canvas, shapes)
        layers = [insonify(canvas, speckle), *(region.astype(float) for region in canvas.masks.values())]
        picture, *regions = scan_convert(layers, panel.probe, across - panel.left, down - panel.top)
        image += picture
        masks |= {task: region > 0.5 for task, region in zip(canvas.masks, regions, strict=True)}
    return Phantom(np.round(image).astype(np.uint8), {task: masks[task] for task in ANATOMIES[anatomy]}, pixel)


def _panels(anatomy: str, rng: np.random.Generator) -> tuple[float, list[_Panel]]:
    """The width of the picture in mm and the sectors on it."""
    if anatomy == "small parts":
        field = 78.0
        probe = Probe(1e4, 19e-4, 46, pulse=0.2, beam=0.32, focus=20, loss=0.7, looks=2)
        paints = [paint_breast, paint_thyroid] if rng.uniform() < 0.5 else [paint_thyroid, paint_breast]
        return field, [_Panel(probe, paint, x * field, 10) for paint, x in zip(paints, (0.25, 0.75), strict=True)]
    if anatomy == "obstetric":
        field = rng.uniform(140, 144)
        probe = Probe(
            rng.uniform(45, 60), np.deg2rad(rng.uniform(36, 42)), 138, pulse=0.45, beam=0.8, focus=70, loss=0.3
        )
        return field, [_Panel(probe, paint_obstetric, field / 2, -5)]
    depth, angle = rng.uniform(148, 156), np.deg2rad(rng.uniform(36, 39))
    field = 2 * depth * np.sin(angle)
    probe = Probe(2, angle, depth, pulse=0.5, beam=1.2, focus=75, loss=0.2)
    return field, [_Panel(probe, paint_heart, field / 2, (field - depth) / 2)]


def _canvas(probe: Probe, field_mm: float, size: int, rng: np.random.Generator) -> Canvas:
    """Beams fine enough for the pixels and for the pulse; the hand that holds the probe is never quite still."""
    samples = int(max(1.2 * size * probe.depth / field_mm, 0.75 * probe.depth / probe.pulse))
    arc = 2 * probe.half_angle * (probe.radius + probe.depth)
    beams = fft.next_fast_len(int(max(0.55 * size * arc / field_mm, 72)))
    shift = rng.normal(0, 0.012 * probe.depth, 2).clip(-0.025 * probe.depth, 0.025 * probe.depth)
    return Canvas.under(probe, samples, beams, (shift[0], shift[1] / 2), rng.normal(0, 0.025))


def check_settings(size: int, **numbers: int) -> None:
    """Check the edge of a picture, in pixels, and numbers that count from 0."""
    if not SMALLEST <= size <= LARGEST:
        raise ProPLError("size", f"is {size}", f"give {SMALLEST} to {LARGEST} pixels")
    for name, number in numbers.items():
        if number < 0:
            raise ProPLError(name, f"is {number}", "give 0 or more")
