"""MetaImage (`.mha`; `.mhd` with its `.raw`) through SimpleITK.

The file holds (x, y) or (x, y, frame), with axes of length 1 anywhere after y; SimpleITK gives `(H, W)` or `(frame, H, W)`.
The third or fourth axis is always taken for time. Directions and offsets are not applied, but kept for
masks. This is how the first form of CAMUS stores its pictures and sequences.

The header is read here first, because it names the file that holds the values, and a header from elsewhere may name any
file of this machine; and because ITK allocates what the header declares.
Fields: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK

from propl_monai.common.spacing import stated_spacing
from propl_monai.errors import ProPLError
from propl_monai.images.geometry import Geometry
from propl_monai.images.picture import (
    COPY_AGAIN,
    MAX_WHOLE_BYTES,
    Stored,
    check_size,
    refuse_lines,
    without_transparency,
)

_HEADER_LIMIT = 2**26  # bytes; a tracked sequence has some hundred for each frame
_LINE_LIMIT = 2**20
_SHORT, _LONG = 250, 32_000  # bytes of a value: beyond them ITK 5.4 fails, or writes past the end of its buffer
_SHORT_FIELDS = {"Comment", "Name", "ObjectType", "ObjectSubType", "AcquisitionDate"}
# The fields that decide how values are read; any other is the user's own and may repeat.
_OWN_FIELDS = {
    *("ObjectType", "NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "ElementDataFile", "HeaderSize"),
    *("ElementSpacing", "ElementSize", "BinaryData", "CompressedData", "CompressedDataSize"),
    *("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
}
_ONE, _TWO, _FOUR = ("MET_CHAR", "MET_UCHAR"), ("MET_SHORT", "MET_USHORT"), ("MET_INT", "MET_UINT", "MET_FLOAT")
_EIGHT = ("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE")
_BYTES = {**dict.fromkeys(_ONE, 1), **dict.fromkeys(_TWO, 2), **dict.fromkeys(_FOUR, 4), **dict.fromkeys(_EIGHT, 8)}


@dataclass(frozen=True)
class _Header:
    sizes: tuple[int, ...]  # x, y, ...
    kind: str
    channels: int
    spacing: tuple[float, ...]  # x, y, ...; empty when the header does not say
    compressed: bool
    data: Path
    data_start: int  # least number of bytes before the values
    affine: np.ndarray | None  # see `Geometry`

    @property
    def bytes(self) -> int:
        return math.prod(self.sizes) * self.channels * _BYTES[self.kind]


def open_stored(path: Path, kind: str, stream: BinaryIO) -> Stored:
    """Read the header."""
    header = _read_header(path, stream)
    long = [axis for axis, length in enumerate(header.sizes) if axis >= 2 and length != 1]
    if len(long) > 1:
        shape = " × ".join(map(str, header.sizes))
        raise ProPLError(path, f"is a MetaImage of {shape}, not of frames (x, y) or (x, y, frame)", "export the frames")
    refuse_lines(path, header.sizes)
    width, height = header.sizes[:2]
    check_size(path, height, width)
    _check_values(path, header)
    count = math.prod(header.sizes[2:])
    spacing, note = stated_spacing(*header.spacing[1::-1]) if len(header.spacing) >= 2 else (None, "")
    decoder = partial(_decode, path, header)
    geometry = Geometry(header.sizes, header.affine)
    return Stored(path, kind, height, width, count, decoder, spacing_mm=spacing, spacing_note=note, geometry=geometry)


def _read_header(path: Path, stream: BinaryIO) -> _Header:
    fields, end = _fields(path, stream)
    try:
        sizes = tuple(int(word) for word in fields["DimSize"].split())
        if len(sizes) != int(fields["NDims"]) or not 2 <= len(sizes) <= 4 or min(sizes) < 1:
            raise ValueError("DimSize")
        spacing = tuple(float(word) for word in fields.get("ElementSpacing", fields.get("ElementSize", "")).split())
        skipped = max(int(fields.get("HeaderSize", "0")), 0)
        channels = int(fields.get("ElementNumberOfChannels", "1"))
        kind = fields["ElementType"].upper().removesuffix("_ARRAY")
    except (KeyError, ValueError) as error:
        raise ProPLError(path, f"is a MetaImage with a missing or invalid field ({error})", COPY_AGAIN) from error
    if kind not in _BYTES or not (channels == 1 or (channels in (3, 4) and kind == "MET_UCHAR")):
        raise ProPLError(path, f"holds {channels} channels of {kind}", "export it as grey, or as RGB of MET_UCHAR")
    if fields.get("BinaryData", "True").lower() != "true":
        raise ProPLError(path, "holds its values as text", "save it with BinaryData = True")
    compressed = fields.get("CompressedData", "False").lower() == "true"
    data, start = _data_file(path, fields["ElementDataFile"], end)
    affine = _affine(fields, len(sizes), spacing)
    return _Header(sizes, kind, channels, spacing, compressed, data, start + skipped, affine)


def _affine(fields: dict[str, str], axes: int, spacing: tuple[float, ...]) -> np.ndarray | None:
    """From (x, y, frame) to mm; None where the header does not say, or what it says makes no sense."""
    found = []
    for names in (("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin")):
        words = next((fields[name].split() for name in names if name in fields), [])
        try:
            found.append(np.array(words, np.float64))
        except ValueError:
            return None
    matrix, offset = found
    if (matrix.size, offset.size, len(spacing)) != (axes**2, axes, axes):
        return None
    space = min(axes, 3)
    affine = np.eye(4)
    # Each row of TransformMatrix is the direction of an axis.
    affine[:space, :space] = matrix.reshape(axes, axes).T[:space, :space] * np.array(spacing[:space])
    affine[:space, 3] = offset[:space]
    return affine if np.isfinite(affine).all() and np.linalg.norm(affine[:3, :3], axis=0).all() else None


def _fields(path: Path, stream: BinaryIO) -> tuple[dict[str, str], int]:
    """The fields up to ElementDataFile, which is always the last, and where the header ends."""
    fields: dict[str, str] = {}
    while stream.tell() < _HEADER_LIMIT:
        line = stream.readline(_LINE_LIMIT)
        name, equals, value = line.decode("latin-1").partition("=")
        name = name.strip()
        if not line.endswith(b"\n") or (line.strip() and not (equals and name)) or "\0" in name:
            break
        limit = _SHORT if name in _SHORT_FIELDS else _LONG
        if len(value.strip()) > limit:
            fact = f"has {len(value.strip())} bytes in the header field {name}, where ITK reads {limit}"
            raise ProPLError(path, fact, "shorten it")
        if name in _OWN_FIELDS and fields.get(name, value.strip()) != value.strip():
            fact = f"is a MetaImage whose header is damaged: it gives {name} twice, as '{fields[name]}' and '{value.strip()}'"
            raise ProPLError(path, fact, "keep one of them")
        fields[name] = value.strip()
        if name == "ElementDataFile":
            return fields, stream.tell()
    raise ProPLError(path, "is a MetaImage whose header is damaged", COPY_AGAIN)


def _data_file(path: Path, name: str, end: int) -> tuple[Path, int]:
    """The file that holds the values, and where they may start at the earliest."""
    if name.upper() == "LOCAL":
        return path, end
    name = re.sub(r"^(\./)+", "", name)  # the folder of the header, as some programs write it
    if not name or Path(name).name != name or "\\" in name or ":" in name:
        fact = "names a file of values outside its own folder"
        raise ProPLError(path, fact, "move that file beside the header, and write its bare name after ElementDataFile")
    if name.upper().startswith("LIST") or "%" in name:
        raise ProPLError(path, "spreads its values over several files", "save it with one .raw file, or as .mha")
    data = path.parent / name
    if not data.is_file():
        raise ProPLError(path, f"its file of values {name} is missing", "copy it beside the header")
    return data, 0


def _check_values(path: Path, header: _Header) -> None:
    size = header.data.stat().st_size
    if header.compressed:
        if header.bytes > MAX_WHOLE_BYTES:
            fact = f"unpacks to {header.bytes:,} bytes, more than {MAX_WHOLE_BYTES:,}"
            raise ProPLError(path, fact, "save it without compression")
    elif size < header.data_start + header.bytes:
        stated = header.data_start + header.bytes
        raise ProPLError(path, f"is cut short: {header.data.name} has {size} of {stated} bytes", COPY_AGAIN)


def _check_stream(path: Path, header: _Header) -> None:
    """Unpack to the end, where the checksum is: ITK takes a stream that is cut short for zeros."""
    unpacker, size = zlib.decompressobj(wbits=47), 0  # zlib or gzip, as MetaIO takes either
    with header.data.open("rb") as stream:
        stream.seek(header.data_start)
        while not unpacker.eof and (part := stream.read(2**16)):
            while part and size <= header.bytes:
                size += len(unpacker.decompress(part, 2**20))
                part = unpacker.unconsumed_tail
    if not unpacker.eof or size != header.bytes:
        fact = f"unpacks to {size} bytes or more" if size > header.bytes else f"unpacks to {size} bytes"
        raise ProPLError(path, f"{fact} where its header states {header.bytes}", COPY_AGAIN)


def _decode(path: Path, header: _Header) -> Iterator[np.ndarray]:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if tuple(reader.GetSize()) != header.sizes or reader.GetNumberOfComponents() != header.channels:
        raise ProPLError(path, "is a MetaImage whose header can be read in two ways", COPY_AGAIN)
    width, height = header.sizes[:2]
    if header.compressed:
        _check_stream(path, header)
    whole = SimpleITK.GetArrayFromImage(reader.Execute()) if header.compressed else None
    for index in range(math.prod(header.sizes[2:])):
        if whole is None:
            place = [index if length > 1 else 0 for length in header.sizes[2:]]
            reader.SetExtractIndex([0, 0, *place])
            reader.SetExtractSize([width, height, *(0 for _ in place)])
            values = SimpleITK.GetArrayFromImage(reader.Execute())
        else:
            values = whole.reshape(-1, height, width, header.channels)[index]
        values = values.reshape((height, width, header.channels)[: 2 + (header.channels > 1)])
        yield without_transparency(values) if header.channels == 4 else values
