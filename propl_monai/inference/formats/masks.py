"""The masks of one input file, as a format takes them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from propl_monai.common.spacing import Spacing
from propl_monai.errors import ProPLError
from propl_monai.images import turn_back
from propl_monai.images.geometry import Geometry, placed
from propl_monai.tasks import Task

MOST_VALUES = 2_000_000_000  # in one file of all frames, which is built in memory


def frame_name(name: str, count: int, number: int) -> str:
    """The name of the results of a frame, from 1, of a file that holds `count` frames."""
    return name if count == 1 else f"{name}_frame_{number:04d}"


@dataclass
class Masks:
    """The masks of all frames, kept compressed, as a cine has gigabytes of them.

    Attributes:
        path: the input file.
        name: of its results, relative to the output folder, without suffix.
        count: number of frames.
        tasks: one mask each.
        spacing_mm: height and width of a pixel; None when unknown.
        seconds_per_frame: None when unknown.
        geometry: of the file, see `images.geometry`; None where it has none.
        orientation: EXIF's number of the turn that made the picture upright, see `Picture`; masks are upright.
        size: (height, width).
    """

    path: Path
    name: str
    count: int
    tasks: Sequence[Task]
    spacing_mm: Spacing | None = None
    seconds_per_frame: float | None = None
    geometry: Geometry | None = None
    orientation: int = 1
    size: tuple[int, int] = (0, 0)
    _frames: list[bytes] = field(default_factory=list, repr=False)

    def add(self, masks: Sequence[np.ndarray]) -> None:
        """Add the next frame: one bool (H, W) per task."""
        self.size = masks[0].shape[0], masks[0].shape[1]
        self._frames.append(zlib.compress(np.packbits(np.stack(masks)).tobytes(), 1))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Bool (K, H, W) of K tasks, frame by frame."""
        shape = (len(self.tasks), *self.size)
        for frame in self._frames:
            bits = np.frombuffer(zlib.decompress(frame), np.uint8)
            yield np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)

    def stored(self, mask: np.ndarray) -> np.ndarray:
        """An upright mask (H, W) as the file stores its picture, x first.

        Viewers of volumes do not turn a picture by its EXIF orientation.
        """
        return turn_back(mask, self.orientation).T

    def stored_affine(self) -> np.ndarray:
        """Where the pixels of `stored` masks lie, see `geometry.placed`."""
        spacing = self.spacing_mm
        if self.orientation >= 5 and spacing is not None:  # turned by a quarter
            spacing = spacing[1], spacing[0]
        return placed(self.geometry, spacing)

    def names(self) -> list[str]:
        """The names of the results of all frames."""
        return [frame_name(self.name, self.count, number) for number in range(1, self.count + 1)]

    def picture_names(self) -> list[str]:
        """The names of the pictures, with the suffix of the file; frames of a cine are named as PNG."""
        if self.count == 1:
            return [Path(self.name).with_name(self.path.name).as_posix()]
        return [f"{name}.png" for name in self.names()]

    def require_room(self, layers: int = 1) -> None:
        """Refuse a cine whose masks, `layers` values per pixel, make too large a file."""
        values = layers * self.count * self.size[0] * self.size[1]
        if values > MOST_VALUES:
            fact = f"its masks hold {values:,} values, more than {MOST_VALUES:,} in one file"
            raise ProPLError(self.path, fact, "cut the cine, or write --format png")
