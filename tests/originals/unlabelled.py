"""A fake folder of pictures and a cine that nobody has drawn on, at several depths and with names that come twice."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

HEIGHT, WIDTH, FRAMES = 10, 6, 4


def make(folder: Path) -> Path:
    """Two pictures side by side, two patients' folders with equal names in them, a cine, and what is no picture."""
    write_picture(folder / "scan.png", 10)
    write_picture(folder / "SCAN.jpg", 20)
    write_picture(folder / "patient a" / "1.png", 30)
    write_picture(folder / "patient a" / "2.png", 40)
    write_picture(folder / "patient b" / "left" / "1.png", 50)
    write_cine(folder / "patient b" / "cine.nii.gz")
    (folder / "notes.txt").write_text("two patients")
    (folder / ".hidden.png").write_text("no picture")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "scan.png").write_text("no picture")
    return folder


def write_picture(path: Path, value: int) -> None:
    """Write a grey picture of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (WIDTH, HEIGHT), value).save(path)


def write_cine(path: Path) -> None:
    """Write a cine of which each frame has the value of its number, from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.broadcast_to(np.arange(1, FRAMES + 1, dtype=np.uint8), (WIDTH, HEIGHT, FRAMES))
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values), np.diag([0.3, 0.2, 1.0, 1.0])), path)


def write_dicom(path: Path, value: int) -> None:
    """Write an ultrasound still of one grey value."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = UltrasoundImageStorage, generate_uid()
    made.Modality = "US"
    made.set_pixel_data(np.full((HEIGHT, WIDTH), value, np.uint8), "MONOCHROME2", 8)
    made.save_as(path, enforce_file_format=True)
