"""`Study`: one opened file, its frames and the masks on them, all in memory."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from propl_monai.common.files import true_type
from propl_monai.common.spacing import Spacing
from propl_monai.errors import ProPLError
from propl_monai.images import Cine, read_frames
from propl_monai.images.geometry import Geometry
from propl_monai.inference.known import Scores
from propl_monai.tasks import Task

MOST_PIXELS = 16_000_000  # of a frame: more is too much for the canvas of a phone
MOST_BYTES = 512_000_000  # of all frames
_OTHERWISE = "segment it with `propl predict`"


@dataclass
class Found:
    """The mask of one task on one frame, packed.

    Attributes:
        bits: see `pack`.
        edited: corrected by hand.
        deviation: the uncertainty as bytes (H, W), 255 for the largest one, 0.5; None where it was not asked for.
        scores: whether the picture is of a known kind and shows the target; None for weights without scores.
    """

    bits: bytes
    edited: bool = False
    deviation: bytes | None = None
    scores: Scores | None = None


@dataclass
class Study:
    """One opened file.

    Attributes:
        name: of the file, as the user knows it.
        frames: uint8, (H, W) or (H, W, 3), upright.
        spacing_mm: height and width of a pixel; None where the file does not say.
        spacing_note, seconds_per_frame, geometry, orientation: see `images.Cine`.
        dicom: the bytes of a DICOM file, which a DICOM SEG refers to; empty for other files.
        found: by (task name, number of the frame from 1).
        seen: when the page was last heard of, in seconds of a clock.
    """

    name: str
    frames: list[np.ndarray]
    spacing_mm: Spacing | None = None
    spacing_note: str = ""
    seconds_per_frame: float | None = None
    geometry: Geometry | None = None
    orientation: int = 1
    dicom: bytes = field(default=b"", repr=False)
    found: dict[tuple[str, int], Found] = field(default_factory=dict, repr=False)
    seen: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.frames[0].shape[0], self.frames[0].shape[1]

    @property
    def bytes(self) -> int:
        """Of all frames."""
        return sum(frame.nbytes for frame in self.frames)

    def frame(self, number: int) -> np.ndarray:
        """The frame of a number from 1."""
        if not 1 <= number <= len(self.frames):
            raise ProPLError(self.name, f"has no frame {number}", f"it has {len(self.frames)}")
        return self.frames[number - 1]

    def mask(self, task: Task, number: int) -> np.ndarray:
        """Bool (H, W) of a task on a frame."""
        self.frame(number)
        if (one := self.found.get((task.name, number))) is None:
            fact = f"the {task.name} is not segmented on frame {number}"
            raise ProPLError(self.name, fact, "ask for it on this frame, or segment all frames, first")
        return unpack(one.bits, self.size)

    def missing(self, tasks: Sequence[Task], first: int = 1) -> list[int]:
        """Numbers of frames, from `first` on, on which a task is not segmented."""
        numbers = range(max(first, 1), len(self.frames) + 1)
        return [number for number in numbers if any((task.name, number) not in self.found for task in tasks)]

    @contextmanager
    def on_disk(self, folder: Path) -> Iterator[Path]:
        """The DICOM file on disk while the block runs; for any other file a path without a file."""
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / self.name
            if self.dicom:
                path.write_bytes(self.dicom)
            yield path


def open_study(content: bytes, name: str, folder: Path) -> Study:
    """Decode a file, which lies on disk only meanwhile.

    Args:
        content: of the file.
        name: that the user gave it; only its last part counts.
        folder: for temporary files.
    """
    name = _plain(name)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / name
        path.write_bytes(content)
        try:
            cine = read_frames(path)
            frames = _frames(path, cine)
            dicom = content if true_type(path) == "a DICOM file" else b""
        except ProPLError as error:  # in words of the file that the user knows
            raise ProPLError(name, error.fact.replace(str(path), name), error.cure) from None
    kept = (cine.spacing_mm, cine.spacing_note, cine.seconds_per_frame, cine.geometry, cine.orientation)
    return Study(name, frames, *kept, dicom)


def _plain(name: str) -> str:
    """A name without folders and without what no file system takes."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(letter if letter.isalnum() or letter in "._-() " else "_" for letter in last).strip(". ")
    encoded = kept.encode()
    return encoded[-100:].decode(errors="ignore") or "picture"


def _frames(path: Path, cine: Cine) -> list[np.ndarray]:
    frames: list[np.ndarray] = []
    total = 0
    for frame in cine:
        if frame.shape[0] * frame.shape[1] > MOST_PIXELS:
            raise ProPLError(path, f"has more than {MOST_PIXELS:,} pixels, too many for this page", _OTHERWISE)
        total += frame.nbytes
        if total > MOST_BYTES or frame.nbytes * cine.count > 3 * MOST_BYTES:
            fact = f"its {cine.count} frames take more than {MOST_BYTES // 10**6} MB, too much for this page"
            raise ProPLError(path, fact, f"cut it, or {_OTHERWISE}")
        frames.append(frame)
    return frames


def pack(mask: np.ndarray) -> bytes:
    """Bool (H, W) as compressed bits."""
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def unpack(bits: bytes, size: tuple[int, int]) -> np.ndarray:
    """The inverse of `pack`."""
    flat = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=size[0] * size[1])
    return flat.reshape(size).astype(bool)
