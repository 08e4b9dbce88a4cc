"""DICOM stills and cines through pydicom.

| in the file | becomes |
|---|---|
| raw (implicit or explicit, little or big endian), JPEG, JPEG 2000, RLE | what `pydicom.pixels` gives |
| MONOCHROME1 | inverted: 0 is black |
| YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT, PALETTE COLOR, either planar configuration | RGB |
| 8 bits a sample | as they are: what scanners store is meant to be seen so |
| more bits, with a window or VOI LUT | modality and VOI LUT, its range stretched to 0-255 |
| signed grey (MONOCHROME2), without a window | as without sign, if no value is negative; else refused |
| more bits, without | stretched by the fewest of 8, 10, 12, 14 and 16 bits that hold the maximum of all frames |
| colour of more bits | stretched likewise, also by `read_values` |

Frames are decoded one at a time. Every error is in our words, as those of pydicom may quote a patient. Text that is burned
into the pixels stays there: it cannot be told from the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image
from pydicom import Dataset, uid
from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing, get_decoder
from pydicom.pixels.utils import as_pixel_options

from propl_monai.errors import ProPLError
from propl_monai.images.dicom_header import UNDEFINED_LENGTH, Header, read_header, read_syntax, silence, with_preamble
from propl_monai.images.picture import COPY_AGAIN, Frames, Stored, check_size, to_uint8

_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
# Fixed, so that a file gives the same values with any other decoders installed. Pillow's wheels hold OpenJPEG.
_PLUGINS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
    uid.RLELossless: "pydicom",
}
_LOSSY = {uid.JPEGBaseline8Bit: "JPEG-compressed DICOM", uid.JPEG2000: "JPEG 2000-compressed DICOM"}
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_FRAME_MARKS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")  # JPEG, JPEG 2000, boxed JPEG 2000
_EXPORT = "export it again, as RGB or MONOCHROME2 of 8 or 16 bits without sign"
_Result = TypeVar("_Result")


def open_stored(path: Path, kind: str, stream: BinaryIO) -> Stored:
    """Read the header, and for compressed data that of each frame."""
    header = _in_our_words(path, lambda: _checked_header(path, stream))
    rows, columns, count = (header.numbers[name] for name in ("Rows", "Columns", "NumberOfFrames"))
    decoder = partial(_decode, path, header)
    return Stored(
        *(path, kind, rows, columns, count, decoder),
        spacing_mm=header.spacing_mm,
        spacing_note=header.spacing_note,
        seconds_per_frame=header.seconds_per_frame,
        lossy=_LOSSY.get(header.syntax, ""),
        show=partial(_shown, path, header),
    )


def _in_our_words(path: Path, read: Callable[[], _Result]) -> _Result:
    """Run a step of pydicom in silence; what it raises is replaced, not chained, as it may quote a patient."""
    with silence():
        try:
            return read()
        except ProPLError:
            raise
        except Exception as error:
            name = type(error).__name__
    raise ProPLError(path, f"is a DICOM file that is damaged or cut short ({name})", COPY_AGAIN)


def _checked_header(path: Path, file: BinaryIO) -> Header:
    stream = with_preamble(path, file)
    syntax = read_syntax(path, stream)
    if syntax not in _NATIVE and syntax not in _PLUGINS:
        name = f"'{syntax.name}'" if syntax.is_transfer_syntax and not syntax.is_private else "private or unknown"
        cure = "convert it to 'Explicit VR Little Endian', with gdcmconv --raw, or dcmconv and its kin of DCMTK"
        raise ProPLError(path, f"is a DICOM file of transfer syntax {name}, which is not read", cure)
    header = read_header(path, stream, syntax)
    _check_numbers(path, header)
    check_size(path, header.numbers["Rows"], header.numbers["Columns"])
    if syntax in _NATIVE:
        _check_raw(path, header)
    else:
        _check_compressed(path, stream, header)
    return header


def _check_numbers(path: Path, header: Header) -> None:
    numbers = header.numbers
    if numbers["NumberOfFrames"] < 0:
        raise ProPLError(path, f"is a DICOM file of {numbers['NumberOfFrames']} frames", COPY_AGAIN)
    if header.colours not in _GREY + _COLOUR:
        raise ProPLError(
            path, "is a DICOM file whose PhotometricInterpretation is none of those that are read", _EXPORT
        )
    if numbers["SamplesPerPixel"] != (3 if header.colours in _COLOUR else 1):
        fact = f"is a DICOM file of {numbers['SamplesPerPixel']} samples per pixel where it says {header.colours}"
        raise ProPLError(path, fact, _EXPORT)
    allocated, stored = numbers["BitsAllocated"], numbers["BitsStored"]
    signed = numbers["PixelRepresentation"] and header.colours != "MONOCHROME2"
    if allocated not in (8, 16) or not 1 <= stored <= allocated or signed:
        kind = "signed" if numbers["PixelRepresentation"] else "unsigned"
        raise ProPLError(path, f"is a DICOM file of {stored} {kind} bits stored in {allocated}", _EXPORT)
    if header.colours == "PALETTE COLOR" and not header.syntax.is_little_endian:
        raise ProPLError(path, "is a DICOM file with a palette in big-endian order", _EXPORT)


def _check_raw(path: Path, header: Header) -> None:
    numbers = header.numbers
    samples = 2 if header.colours == "YBR_FULL_422" else numbers["SamplesPerPixel"]
    frame = numbers["Rows"] * numbers["Columns"] * samples * numbers["BitsAllocated"] // 8
    left_open = not numbers["NumberOfFrames"]
    numbers["NumberOfFrames"] = numbers["NumberOfFrames"] or max(header.length // frame, 1)
    needed = frame * numbers["NumberOfFrames"]
    padded = header.length - 1 == header.there == needed  # the byte that makes a length even is missing, and no other
    if header.length != UNDEFINED_LENGTH and header.there < header.length and not padded:
        fact = f"is a DICOM file that is cut short: {header.there} of {header.length} bytes of pixel data"
        raise ProPLError(path, fact, COPY_AGAIN)
    spare = header.length - needed
    if left_open and spare > 1 and numbers["NumberOfFrames"] > 1:
        fact = f"is a DICOM file of {header.length} bytes of pixel data, which are no whole frames of {frame} bytes"
        raise ProPLError(path, fact, COPY_AGAIN)
    # subsampled colour of a third more bytes is not subsampled, whatever its name says
    if header.length == UNDEFINED_LENGTH or spare < 0 or spare >= frame or (samples == 2 and spare > 1):
        fact = f"is a DICOM file of {header.length} bytes of pixel data where its header states"
        raise ProPLError(path, f"{fact} {numbers['NumberOfFrames']} frames of {frame} bytes", COPY_AGAIN)


def _check_compressed(path: Path, stream: BinaryIO, header: Header) -> None:
    """Count the frames, and compare their size with the header's before a decoder allocates it."""
    if header.length != UNDEFINED_LENGTH:
        raise ProPLError(path, "is a DICOM file of compressed pixel data that are not encapsulated", COPY_AGAIN)
    count = _frame_starts(stream, header)
    stated = header.numbers["NumberOfFrames"] = header.numbers["NumberOfFrames"] or count
    if count != stated or count < 1:
        raise ProPLError(path, f"holds {count} frames where its DICOM header states {stated}", COPY_AGAIN)
    if header.syntax == uid.RLELossless:
        return  # holds no size of its own
    size = header.numbers["Columns"], header.numbers["Rows"]
    stream.seek(header.start)
    for number, frame in enumerate(generate_frames(stream, number_of_frames=stated), start=1):
        inner = Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")).size
        if inner != size:
            sizes = f"{inner[1]} × {inner[0]} where the DICOM header states {size[1]} × {size[0]}"
            raise ProPLError(path, f"frame {number} is {sizes}", COPY_AGAIN)


def _frame_starts(stream: BinaryIO, header: Header) -> int:
    """How many parts of the pixel data begin as a frame does; in RLE each part is one (PS3.5, A.4.2)."""
    stream.seek(header.start)
    parse_basic_offsets(stream)
    parts = generate_fragments(stream)
    return sum(header.syntax == uid.RLELossless or part.startswith(_FRAME_MARKS) for part in parts)


def _decode(path: Path, header: Header) -> Frames:
    """Frames as stored, but inverted where 0 is white, and uint8 where coloured."""
    count, decoder = header.numbers["NumberOfFrames"], get_decoder(header.syntax)
    # A missing Planar Configuration is 0, as in other readers. In JPEG and JPEG 2000 it says nothing of the decoded frame,
    # but pydicom 3.0.2 goes by it.
    told = header.syntax in _NATIVE or header.syntax == uid.RLELossless
    planar = header.elements.get("PlanarConfiguration") or 0
    given = {"number_of_frames": count, "planar_configuration": planar if told else 0}
    with silence():
        options: Any = as_pixel_options(header.elements, **given, pixel_keyword="PixelData")
    if not header.syntax.is_implicit_VR:
        options["pixel_vr"] = header.vr or "OB"
    with path.open("rb") as file:
        stream = with_preamble(path, file)
        stream.seek(header.start)
        if header.syntax in _NATIVE:
            # One by one: pydicom 3.0.2 takes the second frame of raw YBR_FULL_422 from the wrong place when it iterates.
            frames: Frames = (decoder.as_array(stream, index=index, **options)[0] for index in range(count))
        else:
            plugin = _PLUGINS[header.syntax]
            frames = (frame for frame, _ in decoder.iter_array(stream, decoding_plugin=plugin, **options))
        while (frame := _in_our_words(path, lambda: _next(frames, header))) is not None:
            yield frame


def _next(frames: Iterator[np.ndarray], header: Header) -> np.ndarray | None:
    frame = next(frames, None)
    if frame is None:
        return None
    if header.colours == "PALETTE COLOR":
        return _stretched(apply_color_lut(frame, header.elements), _palette_bits(header))
    if frame.ndim == 3:
        return _stretched(frame, header.numbers["BitsStored"])
    return _inverted(frame, header) if header.colours == "MONOCHROME1" else frame


def _palette_bits(header: Header) -> int:
    """Bits of an entry; 8 where entries of 16 use no more, as some programs write them (PS3.3, C.7.6.3.1.6)."""
    bits = int(header.elements.RedPaletteColorLookupTableDescriptor[2])
    tables = [header.elements.get(f"{name}PaletteColorLookupTableData") or b"" for name in ("Red", "Green", "Blue")]
    deep = bits == 16 and not any(any(table[1::2]) for table in tables)
    return 8 if deep and all(tables) else bits


def _stretched(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of `bits` bits to uint8."""
    return values if bits == 8 and values.dtype == np.uint8 else to_uint8(values, 2**bits - 1)


def _inverted(values: np.ndarray, header: Header) -> np.ndarray:
    return values.dtype.type(2 ** header.numbers["BitsStored"] - 1) - values


def _shown(path: Path, header: Header, values: np.ndarray) -> np.ndarray:
    """The result of `_decode` as uint8."""
    plain = header.numbers["BitsAllocated"] == 8 and header.numbers["BitsStored"] == 8
    if values.ndim == 3 or (plain and not header.numbers["PixelRepresentation"]):
        return values
    elements, negative = header.elements, header.colours == "MONOCHROME1"
    stored = _inverted(values, header) if negative else values
    if header.numbers["BitsStored"] > 8 and (elements.get("VOILUTSequence") or _has_window(elements)):
        grey = _in_our_words(path, lambda: _windowed(path, header, stored))
    else:
        grey = _stretched(stored, _depth(path, header))
    return 255 - grey if negative else grey


def _has_window(elements: Dataset) -> bool:
    """Whether there is a window that has a width; some writers fill in 0 (PS3.3, C.11.2.1.2)."""
    width, centre = elements.get("WindowWidth"), elements.get("WindowCenter")
    first = width[0] if isinstance(width, MultiValue) and width else width
    least = 1 if elements.get("VOILUTFunction", "LINEAR") == "LINEAR" else 1e-9
    return centre is not None and first is not None and float(first) >= least


@lru_cache(maxsize=8)
def _depth(path: Path, header: Header) -> int:
    """Bits that the values use: many programs store 8 bits in 16, which would be shown nearly black."""
    stored, signed = header.numbers["BitsStored"], header.numbers["PixelRepresentation"]
    if stored <= 8 and not signed:
        return stored
    top = 0
    for values in _decode(path, header):
        if signed and values.min() < 0:  # black is 0 everywhere else
            fact = f"holds values from {values.min()} to {values.max()}"
            raise ProPLError(path, fact, "shift and scale them to 0-255, or give it a window")
        top = max(top, int((_inverted(values, header) if header.colours == "MONOCHROME1" else values).max()))
    return next(bits for bits in (8, 10, 12, 14, 16) if top < 2**bits)


def _windowed(path: Path, header: Header, values: np.ndarray) -> np.ndarray:
    elements = header.elements
    windowed = apply_voi_lut(apply_modality_lut(values, elements), elements)
    if elements.get("VOILUTSequence"):
        low, high = 0.0, float(2 ** elements.VOILUTSequence[0].LUTDescriptor[2] - 1)
    else:  # the ends of a window's output are what it makes of values far outside
        low, high = apply_windowing(np.array([-1e9, 1e9]), elements).tolist()
    if not high > low:
        raise ProPLError(path, "is a DICOM file whose window or rescale slope makes no sense", _EXPORT)
    return to_uint8(np.clip(windowed.astype(np.float64), low, high) - low, high - low)
