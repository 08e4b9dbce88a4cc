"""AVI and MP4: frames in order and upright; cut short, turned, empty, and without PyAV."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from picture_samples import MOVING_COLOUR, save_video

from propl_monai.errors import ProPLError
from propl_monai.images import picture as picture_module
from propl_monai.images import read_frames, read_image, read_mask

pytest.importorskip("av")
FLAT = np.repeat(np.linspace(0, 240, 5).astype(np.uint8)[:, None, None, None], 32 * 48 * 3).reshape(5, 32, 48, 3)


def test_lossless_avi(tmp_path: Path) -> None:
    cine = read_frames(save_video(tmp_path / "a.avi", MOVING_COLOUR))
    assert (cine.count, cine.spacing_mm, cine.seconds_per_frame) == (3, None, 0.04)
    np.testing.assert_array_equal(list(cine), MOVING_COLOUR)
    np.testing.assert_array_equal(list(cine), MOVING_COLOUR)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.avi", "mjpeg", "yuvj420p"), ("a.avi", "mpeg4", "yuv420p"), ("a.mp4", "mpeg4", "yuv420p")],
)
def test_lossy_videos_are_near(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    frames = list(read_frames(save_video(tmp_path / name, FLAT, codec, pixels)))
    assert [frame.shape[:2] for frame in frames] == [(32, 48)] * 5
    np.testing.assert_allclose([frame.mean() for frame in frames], FLAT.mean(axis=(1, 2, 3)), atol=4)


def test_the_name_does_not_count(tmp_path: Path) -> None:
    save_video(tmp_path / "a.avi", MOVING_COLOUR).rename(tmp_path / "a.png")
    assert read_frames(tmp_path / "a.png").count == 3


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_cut_short(tmp_path: Path, name: str) -> None:
    path = save_video(tmp_path / name, FLAT, "mpeg4", "yuv420p")
    whole = path.read_bytes()
    for length in (20, len(whole) // 3, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(ProPLError) as caught:
            list(read_frames(path))
        assert caught.value.where == str(path)


def test_turned_by_its_header(tmp_path: Path) -> None:
    """The matrix of the track header (ISO 14496-12, 8.3.2) says: turn clockwise by 90° for display."""
    corner = np.zeros((5, 32, 48, 3), np.uint8)
    corner[:, :8, :8] = 255
    path = save_video(tmp_path / "a.mp4", corner, "mpeg4", "yuv420p")
    content = path.read_bytes()
    one, zero, last = (0x10000).to_bytes(4, "big"), bytes(4), (0x40000000).to_bytes(4, "big")
    upright = b"".join([one, zero, zero, zero, one, zero, zero, zero, last])
    minus = (2**32 - 0x10000).to_bytes(4, "big")
    turned = b"".join([zero, one, zero, minus, zero, zero, zero, zero, last])
    track = content.index(b"tkhd")
    place = content.index(upright, track)
    path.write_bytes(content[:place] + turned + content[place + len(turned) :])
    frame = next(iter(read_frames(path)))
    assert frame.shape[:2] == (48, 32)
    assert frame[:4, -4:].min() > 200 and frame[:4, :4].max() < 50  # top left has become top right


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(tmp_path / "a.avi", MOVING_COLOUR)
    for read in (read_image, read_mask):
        with pytest.raises(ProPLError, match="holds 3 frames; `propl frames"):
            read(path)
    with pytest.raises(ProPLError, match="is a video mask"):
        read_mask(save_video(tmp_path / "b.avi", MOVING_COLOUR[:1]))
    with monkeypatch.context() as patch:
        patch.setattr(picture_module, "MAX_PIXELS", 119)
        with pytest.raises(ProPLError, match="more than 119 pixels"):
            read_frames(path)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ProPLError, match=r"needs PyAV; pip install 'propl-monai\[video\]'"):
        read_frames(path)
