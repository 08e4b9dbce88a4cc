"""Fake HMC-QU in both of its forms, written from the description of the originals: names, tables, videos, masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 48, 64
FRAMES = 6  # of each video
FIRST, LAST = 2, 4  # frames of the heartbeat, numbered from 1
LABELLED = "ES0001 _4CH_1"
UNLABELLED = "ES0002_4CH_1"
TWO_CHAMBER = "ES0001_2CH_1"
SEGMENTS = [f"SEG{number}" for number in (1, 2, 3, 5, 6, 7)]
FLAG = "LV Wall Ground-truth Segmentation Masks"


def frame(number: int, name: str = LABELLED) -> np.ndarray:
    """uint8 `(H, W)`: a bright column that tells the number of the frame, on a grey that tells the video."""
    values = np.full((HEIGHT, WIDTH), 20 * (LABELLED, UNLABELLED, TWO_CHAMBER).index(name), np.uint8)
    values[:, 8 * number : 8 * number + 8] = 220
    return values


def masks(frames: int = LAST - FIRST + 1) -> np.ndarray:
    """float64 `(frames, 224, 224)` of 0 and 1: the left half of the upper quarter, one quarter lower in every frame."""
    values = np.zeros((frames, 224, 224))
    for index in range(frames):
        values[index, 56 * (index % 4) : 56 * (index % 4) + 56, :112] = 1
    return values


def make(folder: Path, form: str = "kaggle", slices: int = LAST - FIRST + 1, last: object = LAST) -> Path:
    """Write one form; `slices` and `last` make masks and table disagree."""
    rows = [[LABELLED, *[0] * 6, FIRST, last, "ü"], [UNLABELLED, *[1] * 6, 1, 3, None]]
    if form == "kaggle":
        heads = [["ECHO", *SEGMENTS, "One cardiac-cycle frames", None, FLAG]]
        heads += [[None] * 7 + ["Reference Frame", "End of Cycle", None]]
        write_table(folder / "A4C.xlsx", [*heads, *rows])
        write_table(folder / "A2C.xlsx", [*heads, [TWO_CHAMBER, *[0] * 6, 1, 3, None]])
        a4c, a2c = folder / "HMC-QU" / "A4C", folder / "HMC-QU" / "A2C"
        write_video(a2c / f"{TWO_CHAMBER}.avi")
    else:
        write_table(folder / "HMC_QU.xlsx", [["ECHO", *SEGMENTS, "Reference Frame", "End of Cycle", FLAG], *rows])
        a4c = folder / "HMC-QU Echos" / "HMC-QU Echos"
    for name in (LABELLED, UNLABELLED):
        write_video(a4c / f"{name}.avi")
    write_masks(folder / "LV Ground-truth Segmentation Masks" / f"Mask_{LABELLED}.mat", masks(slices))
    return folder


def write_table(path: Path, rows: list[list[object]]) -> None:
    """Write rows as the first sheet of a workbook."""
    import openpyxl

    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def write_masks(path: Path, values: np.ndarray, variable: str = "predicted") -> None:
    """Write a MATLAB file of one variable."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: values}, do_compression=True)


def write_video(path: Path) -> None:
    """Write 25 frames a second without loss, so that a test knows every pixel."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for number in range(1, FRAMES + 1):
            picture = av.VideoFrame.from_ndarray(frame(number, path.stem), format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
