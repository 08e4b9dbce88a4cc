"""A cine as one picture per frame, for annotation tools and for `unlabelled` data. Nothing but pixels leaves the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from propl_monai.common.run_record import RunRecord
from propl_monai.errors import ProPLError
from propl_monai.images import read_frames, write_picture
from propl_monai.images.sector import Sector, blanked, cropped, sector_of_frames

RUN = "run.json"


def write_frames(
    cine: str | Path,
    folder: str | Path,
    every: int = 1,
    progress: Callable[[int, int], None] | None = None,
    crop: bool = False,
    blank: bool = False,
) -> list[Path]:
    """Write frames as `frame_0001.png` …, 8 bit, upright, numbered from 1 as they are in the cine; and run.json.

    Args:
        cine: any file that `images.read_frames` reads; a still gives one frame.
        folder: new or empty; made.
        every: keep frames 1, 1 + every, 1 + 2 · every, …
        progress: called with (frames read, frames in all).
        crop: cut the border around the sector, the same in all frames; `sector_box` in run.json says where.
        blank: blacken what lies outside the sector, such as burned-in text. What lies inside it, and what touches it, stays.

    Returns:
        The pictures written.
    """
    cine, folder = Path(cine), Path(folder)
    if every < 1:
        raise ProPLError("every", f"{every} is below 1", "give 1 for each frame, 2 for every second one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProPLError(folder, "is not an empty folder", "name a new one")
    frames = read_frames(cine)
    sector = sector_of_frames(frames) if crop or blank else None
    record = RunRecord(folder / RUN, "frames", {"every": every, "crop": crop, "blank": blank}, [cine])
    written: list[Path] = []
    try:
        for number, pixels in enumerate(frames, start=1):
            if (number - 1) % every == 0:
                written.append(folder / f"frame_{number:04d}.png")
                write_picture(written[-1], without_border(pixels, sector, crop, blank))
            if progress:
                progress(number, frames.count)
    except BaseException:  # Ctrl-C too: half a cine would pass for a whole one
        for path in written:
            path.unlink(missing_ok=True)
        raise
    spacing = list(frames.spacing_mm) if frames.spacing_mm else None
    results = {"frames": frames.count, "pixel_spacing_mm": spacing, "seconds_per_frame": frames.seconds_per_frame}
    if crop or blank:
        results["sector_box"] = list(sector.box) if sector else None
    record.write("finished", [path.name for path in written], results)
    return written


def without_border(pixels: np.ndarray, sector: Sector | None, crop: bool, blank: bool) -> np.ndarray:
    """A picture cut to its sector, or black outside it, or both; as it is where no sector was found."""
    if sector is None:
        return pixels
    kept = blanked(pixels, sector) if blank else pixels
    return cropped(kept, sector.box) if crop else kept
