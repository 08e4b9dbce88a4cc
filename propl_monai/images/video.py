"""AVI and MP4 through PyAV, which comes with the extra `video`.

The first video stream is read; sound, subtitles and sample aspect ratio are not. A rotation by a multiple of
90° that the file requests is applied. Frames are decoded to RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from propl_monai.errors import ProPLError
from propl_monai.images.picture import COPY_AGAIN, Frames, Stored, check_size

_OPEN = 0x7FFFFFFF  # a RIFF of this size or more is one whose writer did not know the size


def open_stored(path: Path, kind: str, _: BinaryIO) -> Stored:
    """Read the header, and decode once to count: what containers say of their length is often wrong."""
    (_check_avi if kind == "an AVI video" else _check_mp4)(path, kind)
    with _open(path, kind) as (container, stream):
        count = sum(1 for _ in container.decode(stream))
        if count < 1:
            raise ProPLError(path, f"is {kind} without a frame", COPY_AGAIN)
        rate = stream.average_rate
    height, width = next(_decode(path, kind)).shape[:2]
    pause = float(1 / rate) if rate else None
    decoder = partial(_decode, path, kind)
    return Stored(path, kind, height, width, count, decoder, seconds_per_frame=pause, lossy="video")


def _check_avi(path: Path, kind: str) -> None:
    """An AVI that is cut short plays without an error; its RIFF header holds the full length, unless that was left open."""
    with path.open("rb") as stream:
        size, there = int.from_bytes(stream.read(8)[4:], "little"), path.stat().st_size
        if size == 0 or size >= _OPEN:  # it was streamed
            if (
                last := _end_of_chunks(stream, 12, there)
            ) > there + 1:  # the byte that makes a length even may be missing
                raise ProPLError(path, f"is cut short: {there} bytes where its last frame ends at {last}", COPY_AGAIN)
        elif there not in (size, size + 8) and there < size + 8:  # some programs count the header in
            raise ProPLError(path, f"is cut short: {there} bytes where its header states {size + 8}", COPY_AGAIN)


def _end_of_chunks(stream: BinaryIO, place: int, end: int) -> int:
    """Where the last chunk ends; a list whose length is open, or reaches beyond the end, is followed into its chunks."""
    while place < end:
        stream.seek(place)
        head = stream.read(8)
        if not any(head):  # the file was filled up
            return end
        size = int.from_bytes(head[4:], "little")
        inside = head[:4] in (b"RIFF", b"LIST") and not 0 < size <= end - place - 8
        place += 12 if inside else 8 + size + size % 2
    return place


def _check_mp4(path: Path, kind: str) -> None:
    """Count the samples that are there; an edit list, as cutting without encoding leaves it, shows only some of them."""
    with _open(path, kind, {"ignore_editlist": "1"}) as (container, stream):
        there = sum(1 for packet in container.demux(stream) if packet.size)
        if there < stream.frames:
            fact = f"is cut short: {there} frames where its header states {stream.frames}"
            raise ProPLError(path, fact, COPY_AGAIN)


@contextmanager
def _open(path: Path, kind: str, options: dict[str, str] | None = None) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise ProPLError(path, "is a video, which needs PyAV", "pip install 'propl-monai[video]'") from error
    # The format is not left to FFmpeg: some of those that it knows are lists of other files to open.
    with av.open(str(path), format="avi" if kind == "an AVI video" else "mp4", options=options) as container:
        if not container.streams.video:
            raise ProPLError(path, "holds no video stream", "give the file that holds the pictures")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ProPLError(path, "holds video of an unknown codec", "convert it to MP4 with H.264")
        check_size(path, stream.codec_context.height, stream.codec_context.width)
        yield container, stream


def _decode(path: Path, kind: str) -> Frames:
    with _open(path, kind) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise ProPLError(path, f"holds a damaged frame at {frame.time:.2f} s", COPY_AGAIN)
            check_size(path, frame.height, frame.width)
            turns = (frame.rotation // 90) % 4 if frame.rotation % 90 == 0 else 0
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
