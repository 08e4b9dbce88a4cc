"""`propl crop`: pictures and cines without the border around the scan, as PNG, and where each was cut."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.common.run_record import RunRecord, conclude
from propl_monai.errors import ProPLError
from propl_monai.images import read_frames, write_picture
from propl_monai.images.frames import without_border
from propl_monai.images.picture import NoPicture
from propl_monai.images.sector import sector_of_frames, whole
from propl_monai.inference.formats.masks import frame_name
from propl_monai.inference.inputs import find_inputs

TABLE = "crop.csv"
COLUMNS = ("name", "file", "frames", "sector", "top", "left", "bottom", "right", "height", "width")
logger = logging.getLogger(__name__)


def crop_paths(
    inputs: Sequence[str | Path],
    output_dir: str | Path,
    blank: bool = False,
    keep_size: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int, int, int]:
    """Write files and folders (however deep) cut to the sector of the scan; a bad file does not stop the rest.

    The picture `a/b.png` becomes `a/b.png` in the output folder, frames of a cine `b_frame_0001.png` and so on, all of them
    cut alike. `crop.csv` has a row a file: `sector` 1 where one was found, else 0, and the picture is as it was; the box that
    was cut out, rows top to bottom - 1 and columns left to right - 1 of a picture of height × width.

    Args:
        inputs: files and folders.
        output_dir: new or empty; made.
        blank: blacken what lies outside the sector, such as burned-in text.
        keep_size: do not cut; for `blank` alone.
        progress: called with (files done, files in all).

    Returns:
        Numbers of files written, of those in which a sector was found, and of refused ones; and the exit code.
    """
    folder = Path(output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProPLError(folder, "is not an empty folder", "name a new one")
    if keep_size and not blank:
        raise ProPLError("--keep-size", "leaves nothing to do", "add --blank, or leave it out")
    files = find_inputs(inputs, folder, cines=True, verbs=["crop"])
    record = RunRecord(folder / "run.json", "crop", {"blank": blank, "keep_size": keep_size})
    rows: list[dict[str, Any]] = []
    outputs: list[Path] = []
    refused = 0
    for number, (path, name) in enumerate(files, start=1):
        try:
            row, written = _crop(path, name, folder, blank, keep_size)
            rows.append(row)
            outputs += written
            record.add_input(path, file_sha256(path))
        except ProPLError as error:
            if error.of_machine:
                raise
            if isinstance(error, NoPicture):
                continue
            refused += 1
            logger.error("%s", error)
            record.finding(path, f"{error.fact}; {error.cure}")
        if progress:
            progress(number, len(files))
    status, code = conclude(len(rows), refused)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / TABLE, stream.getvalue().encode("utf-8", "backslashreplace"))
    found = sum(row["sector"] for row in rows)
    record.write(status, [*outputs, folder / TABLE], {"files": len(rows), "sectors": found, "refused": refused})
    return len(rows), found, refused, code


def _crop(path: Path, name: str, folder: Path, blank: bool, keep_size: bool) -> tuple[dict[str, Any], list[Path]]:
    cine = read_frames(path)
    sector = sector_of_frames(cine)
    written: list[Path] = []
    try:
        for number, pixels in enumerate(cine, start=1):
            made = without_border(pixels, sector, not keep_size, blank)
            written.append(folder / f"{frame_name(name, cine.count, number)}.png")
            write_picture(written[-1], made)
            height, width = pixels.shape[:2]
    except BaseException:  # half a cine would pass for a whole one
        for each in written:
            each.unlink(missing_ok=True)
        raise
    box = sector.box if sector and not keep_size else whole(pixels)
    row = {"name": name, "file": path.name, "frames": cine.count, "sector": int(sector is not None)}
    return row | dict(zip(COLUMNS[4:], (*box, height, width), strict=True)), written
