"""Files on disk: which names count as pictures, true types, hashes, writing whole files, locks. Decodes no picture."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from propl_monai.errors import ProPLError

PICTURE_SUFFIXES: tuple[str, ...] = (
    *(".nii.gz", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".nii", ".mha", ".mhd", ".dcm"),
    *(".dicom", ".dic", ".ima", ".jfif", ".jpe", ".btf"),  # the same formats under other names
)
VIDEO_SUFFIXES: tuple[str, ...] = (".avi", ".mp4", ".mov", ".m4v")
_VALUES_SUFFIXES = (".raw", ".zraw")  # beside an .mhd
_RIFF_KINDS = {b"WEBP": "a WebP picture", b"AVI ": "an AVI video"}
# Stills in the container of MP4; no video reader applies their rotation and tiles.
_STILLS = re.compile(rb"ftyp(avi[fs]|hei[cmsx]|hev[cx]|mif1|msf1)")
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # the first atom of old files, which have no ftyp
DICOM_DIRECTORY = "a DICOM directory, which lists the files of an exam"
_DICOMDIR = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
# A data set that starts with an element of group 2 or 8: with a VR, in either order, or implicit with a short length.
_BARE_DICOM = re.compile(
    rb"[\x02\x08]\x00..(?:AE|CS|DA|IS|LO|OB|SH|TM|UI|UL)|\x00[\x02\x08]..(?:CS|DA|LO|SH|TM|UI|UL)"
    rb"|\x08\x00[\x00-\x90]\x00[\x00-\x80]\x00\x00\x00",
    re.DOTALL,
)
_METAIMAGE = re.compile(rb"\s*(?:Comment|ObjectType|ObjectSubType|NDims) *=")
HEAD_BYTES = 512  # of a file, enough to see what it is
TEMPORARY_PREFIX = ".tmp-"
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # errors of disks without locks
_HELD: dict[Path, ExitStack] = {}  # folders that this process has locked until it ends
logger = logging.getLogger(__name__)

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff\xf7", "a JPEG-LS picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"II+\x00\x08\x00", "a TIFF picture"),  # BigTIFF
    (b"MM\x00+\x00\x08", "a TIFF picture"),
    (b"NRRD000", "an NRRD picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media video"),
    (b"\x00\x00\x01\xba", "an MPEG video"),
    (b"\x00\x00\x01\xb3", "an MPEG video"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def picture_suffix(name: str) -> str:
    """The picture suffix that a file name ends with, as spelled in `PICTURE_SUFFIXES`; empty if it has none of them."""
    lowered = name.lower()
    return next((suffix for suffix in PICTURE_SUFFIXES if lowered.endswith(suffix)), "")


def stem(name: str) -> str:
    """A file name without its picture suffix: `a.b.nii.gz` gives `a.b`, `x.csv` stays `x.csv`."""
    return name[: len(name) - len(picture_suffix(name))]


def belongs_to_header(path: Path) -> bool:
    """Whether a file is no picture itself but holds the values of a MetaImage header (`.mhd`) of the same name beside it."""
    return path.suffix.lower() in _VALUES_SUFFIXES and path.with_suffix(".mhd").exists()


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file open for reading, at its first byte. Refused: what is no file, holds no byte, or cannot be read."""
    try:
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise ProPLError(path, "is a folder that cannot be listed", "check its permissions")
            raise ProPLError(path, "is a folder, not a file", "name a file inside it")
        if path.is_symlink() and not path.exists():
            raise ProPLError(path, "is a link that leads nowhere", "copy the file itself here, or remove the link")
        if not path.exists():
            raise ProPLError(path, "does not exist", "check the spelling, and the root folder that it is relative to")
        if not path.is_file():
            raise ProPLError(path, "is a device or a pipe, not a file", "copy what it gives into a file")
        with path.open("rb") as stream:
            if not stream.peek(1):
                raise ProPLError(path, "is empty (0 bytes)", "copy or download it again")
            yield stream
    except OSError as error:
        raise ProPLError(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error


def require_file(path: Path) -> None:
    """Check that a path is a file that holds bytes and may be read."""
    with opened(path):
        pass


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes as 64 lower-case hexadecimal digits."""
    with opened(path) as stream:  # in pieces: weights have hundreds of megabytes
        return hashlib.file_digest(stream, "sha256").hexdigest()


def true_type(path: Path) -> str:
    """What the first bytes of a file say it is, in words, whatever its name says."""
    with path.open("rb") as stream:
        return type_of(stream.read(HEAD_BYTES))


def type_of(head: bytes) -> str:
    """What the first `HEAD_BYTES` of a file say it is, in words."""
    if head[128:132] == b"DICM":  # first, as the bytes before it are free and may look like a TIFF
        return DICOM_DIRECTORY if _DICOMDIR in head else "a DICOM file"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] in _RIFF_KINDS:
        return _RIFF_KINDS[head[8:12]]
    if head[4:8] == b"ftyp" or (head[4:8] in _QUICKTIME and b"\x00" in head):
        return "an AVIF or HEIC picture" if _STILLS.match(head[4:]) else "an MP4 video"
    if head[:4] == b"DICM" or _BARE_DICOM.match(head):
        return "a DICOM file"
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        return "a NIfTI picture"
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") or head[4:7] == b"ni2":  # the length of the header, 348
        return "the header of a NIfTI or Analyze picture in two files"
    if _METAIMAGE.match(head):
        return "a MetaImage"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "plain text" if all(byte >= 32 or byte in b"\t\r\n" for byte in head) else "of no known picture type"


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that a kill or a full disk at any moment leaves either the old file or the new one, never a part.

    Steps: a temporary file in the same folder, flush, fsync, rename, fsync of the folder. Parent folders are created.

    Args:
        path: of the file.
        content: all of it, or one piece after the other, so that a long file is never held as a whole.
    """
    # Not the name of the file, which may be as long as a disk allows.
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{threading.get_native_id()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            for piece in [content] if isinstance(content, bytes) else content:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        if os.name != "nt":  # Windows cannot open a folder, and does not delay its entries
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        fact = f"cannot be written ({error.strerror})"
        raise ProPLError(path, fact, "check the folder, its permissions and the free space") from error
    finally:
        with suppress(OSError):  # where it could not be created it cannot be removed either
            temporary.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: Path, shared: bool = False) -> Iterator[None]:
    """Create a folder and lock it against every other process that uses this function.

    The lock ends with the process, however that ends. Windows and some network disks lock no folders (a warning says so):
    there the folder is only created.

    Args:
        folder: to lock.
        shared: admit other processes with a shared lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.name == "nt" or (folder.resolve() in _HELD and not shared)
        handle = None if held else os.open(folder, os.O_RDONLY)
    except OSError as error:
        cure = "check the folder, its permissions and the free space"
        raise ProPLError(folder, f"cannot be written to ({error.strerror})", cure) from error
    try:
        if handle is not None:
            _lock(handle, folder, shared)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def hold_folder(folder: Path) -> None:
    """Lock a folder as `lock_folder` does, until this process ends; inside it a held folder can be locked again."""
    place, lock = folder.resolve(), ExitStack()
    if place not in _HELD:
        lock.enter_context(lock_folder(folder))
        _HELD[place] = lock


def _lock(handle: int, folder: Path, shared: bool) -> None:
    import fcntl  # Windows has none

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ProPLError(folder, "is being written to by another process", "wait until it has ended") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s: its disk locks no folders; see that no other process writes the same results", folder)


def sweep_orphans(folder: Path | str) -> int:
    """Delete the temporary files that a killed process left in a folder; returns their number."""
    orphans = list(Path(folder).glob(TEMPORARY_PREFIX + "*"))
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return len(orphans)
