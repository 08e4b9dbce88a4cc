"""Fake CAMUS in both of its forms, written from the description of the originals: names, headers, axes and spacing."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

HEIGHT, WIDTH = 12, 8
ROW_MM, COLUMN_MM = 0.154, 0.308
FRAMES = 5  # of a sequence: end-diastole is frame 1, end-systole the last
SPLITS = {"training": ["patient0001"], "validation": ["patient0200"], "testing": ["patient0027"]}


def picture(view: str = "patient0001_2CH", frame: int = 1) -> np.ndarray:
    """uint8 `(H, W)`; its values tell row, column, frame, patient and view: turned axes and mixed-up files show."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = (rows * 10 + columns + 20 * frame).astype(np.uint8)
    values[0, :3] = int(view[-8:-4]) % 256, int(view[-3]), 255 * view.startswith("testing")
    return values


def label_map(frame: int = 1) -> np.ndarray:
    """uint8 `(H, W)`: 1 ventricle, 2 myocardium around it, 3 atrium below; the atrium moves down with each frame."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[1:6, 1:5] = 2
    labels[2:5, 2:4] = 1
    labels[6 + frame % 4 : 9 + frame % 4, 2:4] = 3
    return labels


def make(
    folder: Path,
    form: str = "2023",
    patients: tuple[str, ...] = ("patient0001", "patient0027", "patient0200"),
    quality: str = "Good",
    split_files: bool = True,
) -> Path:
    """Write one form.

    Returns:
        What the download unpacks to: `CAMUS_public`, or the folder that holds `training` and `testing`.
    """
    if form == "challenge":
        for patient in patients:
            write_patient(folder / "training" / patient, "mhd", quality)
        write_patient(folder / "testing" / "patient0001", "mhd", quality, labelled=False)
        return folder
    root = folder / "CAMUS_public"
    for patient in patients:
        write_patient(root / "database_nifti" / patient, "nii.gz", quality)
    for name, members in SPLITS.items() if split_files else ():
        (root / "database_split").mkdir(exist_ok=True)
        (root / "database_split" / f"subgroup_{name}.txt").write_text("".join(f"{member}\n" for member in members))
    return root


def write_patient(folder: Path, suffix: str, quality: str = "Good", labelled: bool = True) -> None:
    """Two views: end-diastole, end-systole, a sequence, and what `Info_*.cfg` tells of them."""
    folder.mkdir(parents=True)
    sequence = "sequence" if suffix == "mhd" else "half_sequence"
    for view in ("2CH", "4CH"):
        stem = f"{folder.name}_{view}"
        info = f"ED: 1\nES: {FRAMES}\nNbFrame: {FRAMES}\nSex: F\nAge: 56\nImageQuality: {quality}\nEF: 54\nFrameRate: 48.4\n"
        (folder / f"Info_{view}.cfg").write_text(info)
        frames = range(1, FRAMES + 1)
        shown = stem if labelled else f"testing_{stem}"
        write(folder / f"{stem}_{sequence}.{suffix}", np.stack([picture(shown, frame) for frame in frames]))
        if labelled and suffix != "mhd":
            write(folder / f"{stem}_{sequence}_gt.{suffix}", np.stack([label_map(frame) for frame in frames]))
        for phase, frame in (("ED", 1), ("ES", FRAMES)):
            write(folder / f"{stem}_{phase}.{suffix}", picture(shown, frame))
            if labelled:
                write(folder / f"{stem}_{phase}_gt.{suffix}", label_map(frame))


def write(path: Path, values: np.ndarray) -> None:
    """Write `(H, W)` or `(frames, H, W)` as `.mhd` with `.raw` (uint8), or as `.nii.gz`."""
    if path.suffix == ".mhd":
        _write_mhd(path, values)
        return
    turned = np.moveaxis(values.swapaxes(-1, -2), 0, -1) if values.ndim == 3 else values.T
    made = nibabel.Nifti1Image(np.ascontiguousarray(turned), np.diag([COLUMN_MM, ROW_MM, 1.0, 1.0]))
    made.header.set_xyzt_units("mm", "sec")
    nibabel.save(made, path)


def _write_mhd(path: Path, values: np.ndarray) -> None:
    frames = values.shape[0] if values.ndim == 3 else 1
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": f"{COLUMN_MM} {ROW_MM} 1",
        "DimSize": f"{WIDTH} {HEIGHT} {frames}",
        "ElementType": "MET_UCHAR",
        "ElementDataFile": f"{path.stem}.raw",
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in header.items()))
    path.with_suffix(".raw").write_bytes(values.tobytes())
