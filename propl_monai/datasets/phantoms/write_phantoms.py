"""A folder of phantoms in the plain layout, all eight tasks."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from propl_monai import tasks
from propl_monai.datasets.phantoms.phantom import ANATOMIES, check_settings, make_phantom
from propl_monai.errors import ProPLError

VIEWS = 2  # pictures of one patient: the same anatomy, the probe held a little differently, new speckle
DATASET = "PHANTOM"
MARK = "phantoms.json"  # says that a folder was written by `write_phantoms` and may be written again


def write_phantoms(folder: Path, cases_per_task: int = 96, size: int = 192, seed: int = 0) -> None:
    """Write `<folder>/<CODE>/PHANTOM/{images,masks}/NAME.png` and `manifest.csv` for each of the eight tasks.

    Image i of an anatomy depends on `seed` and i only, so a larger set contains the smaller. Tasks of one anatomy get
    byte-identical images of the same names; two images of one patient share their `group`.

    Args:
        folder: new, empty, or written by this function before; in the last case its old phantoms are replaced.
        cases_per_task: number of images of each task, at least 2.
        size: edge of the square pictures in pixels, 64 to 1024.
        seed: number from 0.
    """
    folder = Path(folder)
    check_settings(size, seed=seed)
    if cases_per_task < 2:
        raise ProPLError("cases_per_task", f"is {cases_per_task}", "give 2 or more")
    _prepare(folder, {"cases_per_task": cases_per_task, "size": size, "seed": seed})
    for anatomy, names in ANATOMIES.items():
        rows: list[tuple[object, ...]] = [("name", "width", "height", "group", "pixel_size_mm")]
        for number in range(cases_per_task):
            patient, view = divmod(number, VIEWS)
            phantom = make_phantom(anatomy, patient, view, size, seed)
            name = f"patient{patient:04d}_{'ab'[view]}"
            picture = io.BytesIO()
            Image.fromarray(phantom.image).save(picture, format="PNG")
            for task, mask in phantom.masks.items():
                (_home(folder, task) / "images" / f"{name}.png").write_bytes(picture.getvalue())
                Image.fromarray(mask.astype(np.uint8) * 255).save(_home(folder, task) / "masks" / f"{name}.png")
            group = f"{anatomy.replace(' ', '_')}{patient:04d}"
            rows.append((name, size, size, group, round(phantom.pixel_size_mm, 5)))
        for task in names:
            with (_home(folder, task) / "manifest.csv").open("w", newline="", encoding="utf-8") as manifest:
                csv.writer(manifest, lineterminator="\n").writerows(rows)


def _home(folder: Path, task: str) -> Path:
    return folder / tasks.find(task).code / DATASET


def _prepare(folder: Path, settings: dict[str, int]) -> None:
    """Make the folders; leave nothing of an earlier set behind."""
    if folder.is_file():
        raise ProPLError(folder, "is a file", "give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ProPLError(folder, "holds other files", "give a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(
        json.dumps({"maker": "propl_monai.datasets.phantoms", **settings}) + "\n", encoding="utf-8"
    )
    for task in tasks.NAMES:
        for kind in ("images", "masks"):
            home = _home(folder, task) / kind
            home.mkdir(parents=True, exist_ok=True)
            for old in home.glob("patient*.png"):
                old.unlink()
        (_home(folder, task) / "manifest.csv").unlink(missing_ok=True)
