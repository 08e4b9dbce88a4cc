"""HMC-QU: four-chamber videos with the wall of the left ventricle (the myocardium) drawn on every frame of one heartbeat.

The download holds videos, tables, and one MATLAB file of masks a video, in two forms:

* `HMC_QU.xlsx` and `HMC-QU Echos/HMC-QU Echos/ES0001 _4CH_1.avi` (older);
* `A4C.xlsx`, `A2C.xlsx` and `HMC-QU/A4C/*.avi`, `HMC-QU/A2C/*.avi` (Kaggle);
* in both `LV Ground-truth Segmentation Masks/Mask_ES0001 _4CH_1.mat`, variable `predicted`, (frames, 224, 224).

Names may hold a blank before `_4CH`. In a table, the row of a video (column `ECHO`) names the first and the last frame of
the heartbeat, counted from 1: columns `Reference Frame` and `End of Cycle`, or `One cardiac-cycle frames` and the column
right of it where the two share one heading. Slices of the masks are these frames in order, shrunk to 224 x 224 whatever the
shape of the picture, so they are stretched back to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, whosmat

from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source, choice
from propl_monai.datasets.sources.cines import parse_every, read_frame
from propl_monai.datasets.sources.listing import find_folders, find_one, left_out, visible
from propl_monai.errors import ProPLError, first_line
from propl_monai.images import read_frames

NAME = "HMC-QU"
TASK = "myocardium"
VIDEOS = ("labelled", "A4C", "all")
TABLES = ("HMC_QU.xlsx", "A4C.xlsx")  # A2C.xlsx names frames too, but no two-chamber video has masks
MASKS = "LV Ground-truth Segmentation Masks"
MASK_PREFIX = "Mask_"
VARIABLE = "predicted"
_FIRST_COLUMNS = ("reference frame", "one cardiac-cycle frames")
_LAST_COLUMN = "end of cycle"
_FLAG_COLUMN, _FLAG = "lv wall ground-truth", "ü"  # a tick in the font of the original
_HEADING_ROWS = 5


@dataclass(frozen=True)
class _Cycle:
    """The frames of one heartbeat, numbered from 1, None where the cell is empty; and whether the table promises masks."""

    first: int | None
    last: int | None
    masked: bool


def read_hmc_qu(folder: Path, *, videos: str = "labelled", every: str = "1") -> Reading:
    """List HMC-QU in either form.

    Args:
        folder: that holds the table, or above it (two levels at most).
        videos: "labelled" takes the frames that have masks; "A4C" adds all frames of the four-chamber videos without masks,
            "all" those of the two-chamber videos too, both unlabelled.
        every: keep frames 1, 1 + every, ... of a heartbeat or video.
    """
    choice(NAME, "videos", videos, VIDEOS)
    step = parse_every(NAME, every)
    home = find_one(folder, _tables, " or ".join(TABLES))
    cycles = _read_table(_tables(home)[0])
    cines, excluded = _find_cines(home)
    masks, strays = _find_masks(home)
    listed: list[Record | Exclusion] = [*excluded, *strays]
    promised = [name for name, cycle in cycles.items() if cycle.masked and name not in masks]
    listed += [Exclusion(name, "has masks by the table, but no file of them") for name in promised]
    for name, path in masks.items():
        listed += _read_labelled(name, path, cines.get(name), cycles.get(name), step)
    for name, path in cines.items():
        if name not in masks and (videos == "all" or (videos == "A4C" and not _is_two_chamber(path))):
            listed += _read_unlabelled(name, path, step)
    found = {"A4C videos": sum(not _is_two_chamber(path) for path in cines.values()), "videos with masks": len(masks)}
    return Reading.of(listed, found)


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder that name frames."""
    return [folder / name for name in TABLES if (folder / name).is_file()]


def _find_cines(home: Path) -> tuple[dict[str, Path], list[Exclusion]]:
    cines: dict[str, Path] = {}
    excluded = []
    for place in find_folders(home, lambda folder: any(_is_video(entry) for entry in visible(folder)), depth=3):
        for entry in visible(place):
            if _is_video(entry):
                if cines.setdefault(entry.stem.strip(), entry) is not entry:
                    excluded.append(left_out(entry, "is there twice"))
            elif entry.is_file() and entry.suffix.lower() != ".xlsx":
                excluded.append(left_out(entry, "is not a video of HMC-QU"))
    return cines, excluded


def _is_video(path: Path) -> bool:
    return path.suffix.lower() == ".avi"


def _is_two_chamber(path: Path) -> bool:
    return path.parent.name.upper() == "A2C" or "_2CH" in path.stem.upper()


def _find_masks(home: Path) -> tuple[dict[str, Path], list[Exclusion]]:
    folder = home / MASKS
    if not folder.is_dir():
        raise ProPLError(folder, "is missing", "download it too; without it no frame of HMC-QU has a mask")
    masks, excluded = {}, []
    for path in visible(folder):
        if path.suffix.lower() == ".mat" and path.name.startswith(MASK_PREFIX):
            masks[path.stem.removeprefix(MASK_PREFIX).strip()] = path
        else:
            excluded.append(left_out(path, "is not a file of masks of HMC-QU"))
    return masks, excluded


def _read_labelled(
    name: str, masks: Path, cine: Path | None, cycle: _Cycle | None, step: int
) -> Iterator[Record | Exclusion]:
    """The frames of one heartbeat, or why they cannot be matched with their masks."""
    if cine is None:
        yield Exclusion(name, "has masks but no video")
    elif cycle is None or cycle.first is None or cycle.last is None:
        yield Exclusion(name, "has masks, but the table does not name their frames")
    elif reason := _mask_fault(masks, cycle.last - cycle.first + 1):
        yield Exclusion(name, reason, fault=True)
    else:
        for number in range(cycle.first, cycle.last + 1, step):
            mask = partial(_read_mask, masks, number - cycle.first, cine, number)
            yield _record(name, cine, number, mask)


def _read_unlabelled(name: str, cine: Path, step: int) -> Iterator[Record | Exclusion]:
    try:
        count = read_frames(cine).count
    except ProPLError as problem:
        yield Exclusion(name, f"cannot be read: {problem.fact}", fault=True)
        return
    for number in range(1, count + 1, step):
        yield _record(name, cine, number, None)


def _record(name: str, cine: Path, number: int, mask: partial[np.ndarray] | None) -> Record:
    patient = re.split(r"[_\s]", name)[0]  # ES0001 of "ES0001 _4CH_1"
    return Record(f"{name}_frame{number:03d}", patient, partial(read_frame, cine, number), {TASK: mask})


def _mask_fault(path: Path, frames: int) -> str:
    """Why a mask file cannot be used, from its header; empty when it can."""
    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
    except NotImplementedError:  # scipy's word for it
        return "its masks are a MATLAB 7.3 file (HDF5), which only versions before 7.3 are read"
    except Exception as error:  # damaged files raise nearly anything
        return f"its masks cannot be read as a MATLAB file ({first_line(error)})"
    shape = shapes.get(VARIABLE)
    if shape is None or len(shape) != 3:
        return f"its masks hold no variable '{VARIABLE}' of (frames, height, width)"
    return "" if shape[0] == frames else f"it has {shape[0]} masks, and {frames} frames by the table"


@lru_cache(maxsize=1)
def _load_masks(path: Path) -> np.ndarray:
    try:
        masks: np.ndarray = loadmat(path, variable_names=[VARIABLE])[VARIABLE]
    except Exception as error:  # damaged files raise nearly anything
        raise ProPLError(path, f"cannot be read ({first_line(error)})", "download it again") from error
    return masks


def _read_mask(path: Path, index: int, cine: Path, number: int) -> np.ndarray:
    """One mask in the size of its frame, bool `(H, W)`."""
    values = _load_masks(path)[index]
    present = np.unique(values)
    if np.count_nonzero(present) > 1 or not np.isfinite(present).all():
        raise ProPLError(f"{path}, mask {index + 1}", f"holds {len(present)} values", "a mask holds 0 and one other")
    return _stretch(values != 0, *read_frame(cine, number).pixels.shape[:2])


def _stretch(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixel, seen from the centre of each new one."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[np.ix_(rows, columns)]


def _read_table(path: Path) -> dict[str, _Cycle]:
    """Name of a video to the frames of its heartbeat."""
    cells = _read_cells(path)
    top = next((row for row in range(min(_HEADING_ROWS, len(cells))) if "echo" in map(_word, cells[row])), None)
    if top is None:
        raise ProPLError(path, "has no column ECHO", "give the table of the original download")
    headings: Mapping[str, int] = {
        _word(cell): column for row in cells[top : top + 2] for column, cell in enumerate(row) if isinstance(cell, str)
    }
    first = next((headings[word] for word in _FIRST_COLUMNS if word in headings), None)
    if first is None:
        raise ProPLError(path, "has no column Reference Frame", "give the table of the original download")
    last = headings.get(_LAST_COLUMN, first + 1)
    flag = next((column for word, column in headings.items() if word.startswith(_FLAG_COLUMN)), None)
    return {
        str(row[headings["echo"]]).strip(): _Cycle(
            _whole(row[first]), _whole(row[last]), flag is not None and _word(row[flag]) == _FLAG
        )
        for row in cells[top + 1 :]
        if isinstance(row[headings["echo"]], str)
    }


def _read_cells(path: Path) -> list[list[Any]]:
    import pandas  # late: half a second for every command that only lists the sources

    try:
        return pandas.read_excel(path, header=None, dtype=object).to_numpy().tolist()
    except ImportError as error:
        raise ProPLError(path, "cannot be read without openpyxl", "pip install 'propl-monai[video]'") from error
    except Exception as error:  # damaged files raise nearly anything
        raise ProPLError(path, f"cannot be read as a table ({first_line(error)})", "download it again") from error


def _word(cell: object) -> str:
    return " ".join(cell.split()).lower() if isinstance(cell, str) else ""


def _whole(cell: object) -> int | None:
    return int(cell) if isinstance(cell, int | float) and float(cell).is_integer() and cell >= 1 else None


SOURCE = Source(
    name=NAME,
    title="Wall of the left ventricle on every frame of a heartbeat, apical four-chamber videos",
    tasks=(TASK,),
    group="patient: the ES number that a video's name begins with",
    licence="not known: distributed as aysendegerli/hmcqu-dataset on Kaggle, whose licence has not been seen",
    citation=(
        "Degerli et al., Early Myocardial Infarction Detection over Multi-view Echocardiography, Biomedical Signal "
        "Processing and Control 87 (2024), doi:10.1016/j.bspc.2023.105448"
    ),
    holds={"A4C videos": 162, "videos with masks": 109},
    exclusions=(
        "Frames outside the heartbeat of a labelled video: no mask says what they show.",
        "Videos without masks, unless the option videos includes them.",
    ),
    read=read_hmc_qu,
)
