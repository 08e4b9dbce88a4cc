"""NIfTI-1 and NIfTI-2, one file (`.nii`, `.nii.gz`), through nibabel.

The file holds (x, y) or (x, y, frame), with axes of length 1 anywhere after y; a frame is transposed to `(H, W)`. Colour is
RGB or RGBA of 8 bits a channel, or a vector of three in the fifth axis, as ITK writes it. The third
or fourth axis is always taken for time. The affine's directions are not applied, but kept for
masks. This is how the 2023 form of
CAMUS stores its pictures and half sequences.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np

from propl_monai.common.spacing import positive, stated_spacing
from propl_monai.errors import ProPLError
from propl_monai.images.geometry import Geometry
from propl_monai.images.picture import COPY_AGAIN, Stored, check_size, refuse_lines, without_transparency

_MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
_SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_HEADER_BYTES = 352
_SPARE_BYTES = 2**24  # that may follow the values in a gzip file; more is a bomb
_TIME_AXIS = 3
_RGB, _RGBA = ("R", "G", "B"), ("R", "G", "B", "A")
_VECTOR = 1007  # the code of NIFTI_INTENT_VECTOR
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def open_stored(path: Path, kind: str, stream: BinaryIO) -> Stored:
    """Read the header; errors of nibabel are left to the caller."""
    with _open(path, kind, stream) as picture:
        shape = tuple(int(length) for length in picture.shape)
        shape = shape[:-1] if _is_vector(picture) else shape
        if picture.get_data_dtype().kind not in "uif" and picture.get_data_dtype().names not in (_RGB, _RGBA):
            raise ProPLError(path, f"is a NIfTI of {picture.get_data_dtype()} values", "export it as a grey picture")
        if len(shape) < 2:
            raise ProPLError(path, f"is a NIfTI of shape {shape}, not of frames", "export the frame you mean")
        long = [axis for axis, length in enumerate(shape) if axis >= 2 and length != 1]
        if 0 in shape or len(long) > 1 or any(axis > _TIME_AXIS for axis in long):
            fact = f"is a NIfTI of shape {shape}, not of frames (x, y) or (x, y, frame)"
            raise ProPLError(path, fact, "export the frames you mean")
        refuse_lines(path, shape)
        check_size(path, shape[1], shape[0])
        column, row = (float(length) for length in picture.header.get_zooms()[:2])
        spacing, note = stated_spacing(row, column, _MM_PER_UNIT.get(picture.header.get_xyzt_units()[0]))
        count, seconds = math.prod(shape[2:]), None
        if long == [_TIME_AXIS]:
            unit = picture.header.get_xyzt_units()[1]
            seconds = positive(float(picture.header.get_zooms()[_TIME_AXIS]) * _SECONDS_PER_UNIT.get(unit, 0.0))
        end = picture.dataobj.offset + math.prod(picture.shape) * picture.get_data_dtype().itemsize
        if kind != "gzip data" and path.stat().st_size < end:
            fact = f"is cut short: {path.stat().st_size} bytes where its header states {end}"
            raise ProPLError(path, fact, COPY_AGAIN)
        return Stored(
            path,
            "a NIfTI picture",
            shape[1],
            shape[0],
            count,
            partial(_decode, path, kind, count, end),
            spacing_mm=spacing,
            spacing_note=note,
            seconds_per_frame=seconds,
            geometry=_geometry(picture, shape),
        )


def _is_vector(picture: Any) -> bool:
    """Whether the fifth axis holds red, green and blue."""
    vector = int(picture.header["intent_code"]) == _VECTOR and picture.get_data_dtype() == np.uint8
    return vector and len(picture.shape) == 5 and picture.shape[4] == 3


def _geometry(picture: Any, shape: tuple[int, ...]) -> Geometry:
    """Without an affine where both codes are 0: what nibabel makes up then is not what ITK makes up."""
    stated = int(picture.header["qform_code"]) > 0 or int(picture.header["sform_code"]) > 0
    unit = _MM_PER_UNIT.get(picture.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([unit, unit, unit, 1]) @ _RAS_TO_LPS @ picture.affine if stated else None
    usable = affine is not None and np.isfinite(affine).all() and np.linalg.norm(affine[:3, :3], axis=0).all()
    return Geometry(shape, affine if usable else None)


@contextmanager
def _open(path: Path, kind: str, file: BinaryIO) -> Iterator[Any]:
    with gzip.open(file) if kind == "gzip data" else nullcontext(file) as stream:
        head = stream.read(_HEADER_BYTES)
        if head[344:347] == b"n+1":
            form: Any = nibabel.Nifti1Image
        elif head[4:7] == b"n+2":
            form = nibabel.Nifti2Image
        else:
            raise ProPLError(path, "is gzip data of no known picture type", "unpack it and look what it holds")
        length = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
        if not length & {348, 540}:  # of the header itself: nibabel would repair it and go on
            raise ProPLError(path, "is a NIfTI picture whose header is damaged", COPY_AGAIN)
        stream.seek(0)
        yield form.from_stream(stream)


def _decode(path: Path, kind: str, count: int, end: int) -> Iterator[np.ndarray]:
    with path.open("rb") as stream:
        if kind == "gzip data":
            _check_gzip(path, stream, end)
            stream.seek(0)
        yield from _frames(path, kind, stream, count)


def _frames(path: Path, kind: str, stream: BinaryIO, count: int) -> Iterator[np.ndarray]:
    with _open(path, kind, stream) as picture:
        width, height = picture.shape[:2]
        vector, names = _is_vector(picture), picture.get_data_dtype().names
        for index in range(count):
            place = tuple(index if length > 1 else 0 for length in picture.shape[2 : 4 if vector else None])
            values = np.asanyarray(picture.dataobj[(slice(None), slice(None), *place, ...)])
            if names:
                values = np.stack([values[name] for name in names], axis=-1)
            values = values.reshape(width, height, -1) if vector or names else values.reshape(width, height)
            upright = np.ascontiguousarray(values.swapaxes(0, 1))
            yield without_transparency(upright) if names == _RGBA else upright


def _check_gzip(path: Path, file: BinaryIO, end: int) -> None:
    """Read to the end, where gzip keeps its checksum; nibabel stops before it and lets flipped bits through."""
    size = 0
    with gzip.open(file) as stream:
        while part := stream.read(2**20):
            size += len(part)
            if size > end + _SPARE_BYTES:
                raise ProPLError(path, f"unpacks to more than the {end} bytes its header states", "export it again")
