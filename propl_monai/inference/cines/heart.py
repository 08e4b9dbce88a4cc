"""`propl ef`: from cines or stills of one or two apical views to volumes and ejection fraction, with pictures to check."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai import tasks as registry
from propl_monai.common.files import require_file, write_atomically
from propl_monai.common.run_record import RunRecord
from propl_monai.common.spacing import Spacing, require_spacing
from propl_monai.errors import ProPLError
from propl_monai.images import Cine, read_frames, to_grey, write_overlay
from propl_monai.inference.cines import area_curve
from propl_monai.inference.cines.discs import DISCS, Ventricle, cut
from propl_monai.inference.cines.ejection import MM3_PER_ML, Ejection, ejection, volume
from propl_monai.inference.cines.phases import find_beats, middle_beat
from propl_monai.inference.cines.predict_cine import predict_cine
from propl_monai.inference.formats.masks import Masks
from propl_monai.inference.measurements import largest_part
from propl_monai.inference.predictor import Predictor

VENTRICLE, ATRIUM = registry.find("left ventricle"), registry.find("left atrium")
PHASES = ("ED", "ES")
AXES = (255, 255, 255)  # colour of the long axis and the discs


@dataclass(frozen=True)
class View:
    """What is given of one view.

    Attributes:
        name: such as "4CH".
        files: a cine; or two stills, end-diastole and end-systole.
        frames: of the cine: end-diastole and end-systole, from 1; None to find them.
    """

    name: str
    files: tuple[Path, ...]
    frames: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class _Phase:
    """A view at end-diastole or end-systole; masks are bool (2, H, W) of ventricle and atrium, the picture uint8 (H, W)."""

    path: Path
    frame: int | None
    masks: np.ndarray
    picture: np.ndarray
    ventricle: Ventricle
    spacing: Spacing | None


def measure_ejection(
    predictor: Predictor | None,
    views: Sequence[View],
    output: str | Path,
    spacing_mm: Spacing | None = None,
    steady: float = 0.0,
) -> Ejection:
    """Measure the ejection fraction of a patient.

    Writes into `output`: `ef.csv`, a row a view and phase; `VIEW_ED.png` and `VIEW_ES.png`, the pictures with masks, long
    axis and discs; of cines `VIEW_areas.csv` and `VIEW_areas.svg`; and run.json, whose results are all fields of `Ejection`.

    Args:
        predictor: that segments left ventricle and left atrium; None where the files hold masks of the ventricle.
        views: one, or two at right angles to each other.
        output: new or empty; made.
        spacing_mm: height and width of a pixel, whatever the files hold; None takes theirs.
        steady: see `predict_cine`.
    """
    folder, spacing = Path(output), require_spacing(spacing_mm)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProPLError(folder, "is not an empty folder", "name a new one")
    for view in views:
        for path in view.files:
            require_file(path)
        if len(view.files) not in (1, 2) or (view.frames and len(view.files) != 1):
            fact = f"{len(view.files)} files" + " and frames" * bool(view.frames) + " were given"
            raise ProPLError(f"view {view.name}", fact, "give a cine, or two stills: end-diastole, then end-systole")
    settings = {**predictor.settings, "steady": steady} if predictor else {"masks": True}
    asked = [{"name": v.name, "files": [str(path) for path in v.files], "frames": v.frames} for v in views]
    record = RunRecord(
        folder / "run.json",
        "ef",
        {**settings, "views": asked, "spacing_mm": spacing},
        [path for view in views for path in view.files],
    )
    written: list[Path] = []
    phases: dict[str, list[_Phase]] = {}
    try:
        for view in views:
            phases[view.name] = _phases(view, predictor, spacing, steady, folder, written)
        found = ejection(*([each[index].ventricle for each in phases.values()] for index in range(2)))
        for name, both in phases.items():
            for phase, one in zip(PHASES, both, strict=True):
                written.append(folder / f"{name}_{phase}.png")
                _draw(written[-1], one)
        written.append(folder / "ef.csv")
        write_atomically(written[-1], _table(phases))
    except BaseException:  # Ctrl-C too: half of a result would pass for a whole one
        for path in written:
            path.unlink(missing_ok=True)
        raise
    record.write("finished", [path.name for path in written], {**asdict(found), "notes": list(found.notes)})
    return found


def _phases(
    view: View, predictor: Predictor | None, spacing: Spacing | None, steady: float, folder: Path, written: list[Path]
) -> list[_Phase]:
    """End-diastole and end-systole of a view; of a cine, the area curve is written, too."""
    cines = [read_frames(path) for path in view.files]
    if len(cines) == 2:
        for path, cine in zip(view.files, cines, strict=True):
            if cine.count > 1:
                raise ProPLError(path, f"holds {cine.count} frames", "give one cine of a view, or two stills")
        stills = [next(_masks(predictor, path, cine, steady)) for path, cine in zip(view.files, cines, strict=True)]
        return [
            _phase(path, None, masks, next(iter(cine)), spacing or cine.spacing_mm)
            for path, cine, masks in zip(view.files, cines, stills, strict=True)
        ]
    (path,), (cine,) = view.files, cines
    if cine.count == 1:
        raise ProPLError(path, "holds one frame", "give a cine, or two stills: end-diastole, then end-systole")
    kept = Masks(path, view.name, cine.count, [VENTRICLE, ATRIUM])
    row, column = spacing or cine.spacing_mm or (1.0, 1.0)
    areas: list[float | None] = []
    for masks in _masks(predictor, path, cine, steady):
        kept.add(list(masks))
        part, count = largest_part(masks[0])
        areas.append(round(float(np.count_nonzero(part)) * row * column, 4) if count else None)
    unit = "pixel" if (spacing or cine.spacing_mm) is None else "mm"
    curve = {VENTRICLE.name: areas}
    for name, content in (
        (f"{view.name}_areas.csv", area_curve.to_table(curve, unit, cine.seconds_per_frame)),
        (f"{view.name}_areas.svg", area_curve.to_picture(curve, unit, f"{view.name}: {path.name}")),
    ):
        written.append(folder / name)
        write_atomically(written[-1], content)
    if view.frames:
        wanted = view.frames
        if not all(1 <= number <= cine.count for number in wanted):
            raise ProPLError(path, f"holds {cine.count} frames, not frames {wanted}", "count them from 1")
    else:
        beat = middle_beat(find_beats(areas), path)
        wanted = beat.diastole, beat.systole
    chosen = {
        number: (masks, pixels)
        for number, (masks, pixels) in enumerate(zip(kept, cine, strict=True), start=1)
        if number in wanted
    }
    return [_phase(path, number, *chosen[number], spacing or cine.spacing_mm) for number in wanted]


def _phase(path: Path, frame: int | None, masks: np.ndarray, pixels: np.ndarray, spacing: Spacing | None) -> _Phase:
    try:
        ventricle = cut(masks[0], spacing, masks[1])
    except ProPLError as error:
        where = str(path) if frame is None else f"{path}, frame {frame}"
        raise ProPLError(where, f"no left ventricle was found ({error.fact})", error.cure) from error
    return _Phase(path, frame, masks, to_grey(pixels), ventricle, spacing)


def _masks(predictor: Predictor | None, path: Path, cine: Cine, steady: float) -> Iterator[np.ndarray]:
    """Bool (2, H, W) of each frame: ventricle and atrium; where the files hold masks, there is no atrium."""
    if predictor is not None:
        for found in predict_cine(predictor, cine, [VENTRICLE.name, ATRIUM.name], steady=steady):
            yield np.stack([one.mask for one in found])
        return
    for pixels in cine:
        values = np.unique(to_grey(pixels))
        if len(values) > 2 or values[0] != 0:
            raise ProPLError(
                path, f"holds {len(values)} grey levels", "a mask holds 0 and one other; or leave out --masks"
            )
        mask = to_grey(pixels) > 0
        yield np.stack([mask, np.zeros_like(mask)])


def _draw(path: Path, phase: _Phase) -> None:
    """The picture with masks, the long axis, and the discs as lines of their diameters."""
    from skimage.draw import line

    height, width = phase.picture.shape
    lines = np.zeros((height, width), bool)
    scale = np.array(phase.spacing or (1.0, 1.0))
    base, apex = (np.array(end) * scale for end in (phase.ventricle.base, phase.ventricle.apex))
    along = (apex - base) / phase.ventricle.length
    across = np.array([-along[1], along[0]])
    ends = [(base, apex)]
    for number, diameter in enumerate(phase.ventricle.diameters):
        middle = base + (apex - base) * (number + 0.5) / DISCS
        ends.append((middle - across * diameter / 2, middle + across * diameter / 2))
    for start, end in ends:
        corners = np.rint(np.concatenate([start / scale, end / scale])).astype(int).tolist()
        rows, columns = line(*corners)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        lines[rows[inside], columns[inside]] = True
    colours = [VENTRICLE.colour, ATRIUM.colour, AXES]
    write_overlay(path, phase.picture, [*phase.masks, lines], colours)


def _table(phases: dict[str, list[_Phase]]) -> bytes:
    """ef.csv: lengths in mm and volumes in ml, or in pixels and pixel³; the volume is that of the plane alone."""
    rows: list[dict[str, Any]] = []
    for name, both in phases.items():
        for phase, one in zip(PHASES, both, strict=True):
            plane = one.ventricle
            unit, scale = ("mm", MM3_PER_ML) if plane.known_spacing else ("pixel", 1.0)
            row: dict[str, Any] = {
                "view": name,
                "phase": phase,
                "file": one.path.name,
                "frame": one.frame,
                "unit": unit,
            }
            row |= {"length": round(plane.length, 4), "area": round(plane.area, 4)}
            row |= {"volume": round(volume([plane]) / scale, 4), "volume_unit": "ml" if unit == "mm" else "pixel3"}
            row |= {f"disc_{index:02d}": round(float(value), 4) for index, value in enumerate(plane.diameters, start=1)}
            rows.append(row)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")
