"""Locks, whole files and true types."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from propl_monai.common.files import lock_folder, require_file, true_type, write_atomically
from propl_monai.errors import ProPLError


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "new"):
        with pytest.raises(ProPLError, match="is being written to by another process"), lock_folder(tmp_path / "new"):
            pass
    with lock_folder(tmp_path / "new"):
        assert list((tmp_path / "new").iterdir()) == []


def test_shared_locks_keep_out_the_others(tmp_path: Path) -> None:
    with lock_folder(tmp_path, shared=True), lock_folder(tmp_path, shared=True):
        with pytest.raises(ProPLError, match="is being written to by another process"), lock_folder(tmp_path):
            pass
    with lock_folder(tmp_path), pytest.raises(ProPLError, match="another process"), lock_folder(tmp_path, shared=True):
        pass


def test_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(number: int) -> None:
        def flock(handle: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)

    refuse(errno.EBADF)  # NFS, of a folder: it wants the file open for writing
    with lock_folder(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert "locks no folders; see that no other process writes" in caplog.text
    refuse(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), lock_folder(tmp_path):
        pass


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ProPLError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "inner" / "a.txt", b"a")
    with pytest.raises(ProPLError, match="cannot be written to"), lock_folder(tmp_path / "file"):
        pass


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ProPLError, match="is a device or a pipe"):
        require_file(tmp_path / "pipe.png")


@pytest.mark.parametrize(("brand", "kind"), [(b"heic", "an AVIF or HEIC picture"), (b"isom", "an MP4 video")])
def test_a_still_in_the_container_of_videos_is_no_video(tmp_path: Path, brand: bytes, kind: str) -> None:
    (tmp_path / "a").write_bytes(b"\0\0\0\x18ftyp" + brand)
    assert true_type(tmp_path / "a") == kind
