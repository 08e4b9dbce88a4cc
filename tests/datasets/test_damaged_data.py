"""Every fault of the data, planted in a sound phantom set: found under its own code, at its path, and nothing altered."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from propl_monai.common.files import file_sha256
from propl_monai.datasets.sources.registry import read_source
from propl_monai.datasets.verification.file_checks import IMAGE, MASK, FileReport, check_file
from propl_monai.datasets.verification.findings import Verification
from propl_monai.datasets.verification.verify import verify_datalist

LIST = "datalist.json"
Found = set[tuple[str, str]]


class PhantomSet:
    """Eight pictures of the left atrium (and of the left ventricle, the same ones), and the rows of their datalist."""

    def __init__(self, folder: Path, phantoms: Path, codes: tuple[str, ...]) -> None:
        self.folder = folder
        for code in codes:
            shutil.copytree(phantoms / code, folder / code)
        read_source("folder", folder).write(folder / LIST)
        self.content = json.loads((folder / LIST).read_text(encoding="utf-8"))
        self.rows: list[dict[str, Any]] = self.content["cases"]

    def path(self, index: int, role: str = IMAGE) -> Path:
        return self.folder / self.rows[index][role]

    def pixels(self, index: int, role: str = IMAGE) -> np.ndarray:
        return np.asarray(Image.open(self.path(index, role)))

    def save(self, index: int, role: str, pixels: np.ndarray, **options: Any) -> str:
        """Write other pixels to the file of a row, in the type of its name unless told; its path as in the datalist."""
        Image.fromarray(pixels).save(self.path(index, role), **options)
        return self.rows[index][role]

    def rename(self, index: int, role: str, suffix: str) -> Path:
        """Give a row a file of another suffix, to be written."""
        self.path(index, role).unlink()
        self.rows[index][role] = str(Path(self.rows[index][role]).with_suffix(suffix).as_posix())
        return self.path(index, role)

    def of_split(self, split: str) -> int:
        return next(index for index, row in enumerate(self.rows) if row["split"] == split)

    def other_group(self, index: int) -> int:
        """Another row of the same split and another group."""
        row = self.rows[index]
        return next(i for i, r in enumerate(self.rows) if r["split"] == row["split"] and r["group"] != row["group"])

    def verify(self, rehash: bool = True) -> Verification:
        """Write the rows, with the true hashes unless told not to, verify, and check that nothing has changed."""
        for row in self.rows if rehash else []:
            for role in (IMAGE, MASK):
                path = self.folder / str(row.get(role))
                if path.is_file() and path.stat().st_size:
                    row[f"{role}_sha256"] = file_sha256(path)
        if isinstance(self.content, dict):
            (self.folder / LIST).write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        before = fingerprint(self.folder)
        made = verify_datalist(self.folder / LIST, processes=1)
        assert fingerprint(self.folder) == before
        return made


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash, time and mode of everything in a folder."""
    made = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and os.access(path, os.R_OK) else ""
        made[str(path)] = f"{content} {status.st_mtime_ns} {status.st_mode}"
    return made


def found(verification: Verification) -> Found:
    return {(finding.code, finding.where) for finding in verification.findings}


@pytest.fixture
def hearts(phantoms: Path, tmp_path: Path) -> PhantomSet:
    return PhantomSet(tmp_path / "set", phantoms, ("LA",))


def test_a_sound_set_has_no_finding(phantoms: Path, tmp_path: Path) -> None:
    made = PhantomSet(tmp_path / "set", phantoms, tuple(path.name for path in phantoms.iterdir() if path.is_dir()))
    verification = made.verify()
    assert verification.findings == () and verification.cases == 64 and len(verification.files) == 128
    assert "64 cases, 128 files" in verification.to_text() and "nothing wrong" in verification.to_text()


# --- D1, D2: files that are not there, or not what they seem


def missing(role: str) -> Callable[[PhantomSet], Found]:
    def plant(made: PhantomSet) -> Found:
        made.path(3, role).unlink()
        return {("E-MISSING", made.rows[3][role])}

    return plant


def content(data: bytes) -> Callable[[PhantomSet], Found]:
    def plant(made: PhantomSet) -> Found:
        made.path(2).write_bytes(data)
        return {("E-DECODE", made.rows[2][IMAGE])}

    return plant


def folder_instead(made: PhantomSet) -> Found:
    made.path(1, MASK).unlink()
    made.path(1, MASK).mkdir()
    return {("E-DECODE", made.rows[1][MASK])}


def wrong_suffix(made: PhantomSet) -> Found:
    return {("W-SUFFIX", made.save(4, IMAGE, made.pixels(4), format="BMP"))}


def two_at_once(made: PhantomSet) -> Found:
    return missing(IMAGE)(made) | missing(MASK)(made) | folder_instead(made)


# --- D4, D5, D6, D7: pictures and masks


def smaller_mask(made: PhantomSet) -> Found:
    return {("E-SIZE", made.save(0, MASK, made.pixels(0, MASK)[::2, ::2]))}


def transposed_mask(made: PhantomSet) -> Found:
    made.save(0, IMAGE, made.pixels(0)[:, :48])
    return {("E-SIZE", made.save(0, MASK, made.pixels(0, MASK)[:, :48].T))}


def upright_by_exif(made: PhantomSet) -> Found:
    """Stored on its side with a note which way is up: sound, but worth a look."""
    exif = Image.Exif()
    exif[0x0112] = 6
    made.save(0, MASK, made.pixels(0, MASK)[:, 8:56])
    pixels = np.rot90(made.pixels(0)[:, 8:56])
    Image.fromarray(pixels).save(made.rename(0, IMAGE, ".jpg"), exif=exif, quality=95)
    return {("W-TURNED", made.rows[0][IMAGE])}


def frames(suffix: str) -> Callable[[PhantomSet], Found]:
    def plant(made: PhantomSet) -> Found:
        pictures = [Image.fromarray(made.pixels(index)) for index in (0, 1)]
        path = made.rename(0, IMAGE, suffix)
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
        return {("E-FORMAT", made.rows[0][IMAGE])}

    return plant


def mask_values(code: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[PhantomSet], Found]:
    def plant(made: PhantomSet) -> Found:
        path = made.save(5, MASK, change(made.pixels(5, MASK)).astype(np.uint8))
        return {(code, path)} if code else set()

    return plant


def single_pixel(mask: np.ndarray) -> np.ndarray:
    made = np.zeros_like(mask)
    made[3, 4] = 255
    return made


def jpeg_mask(made: PhantomSet) -> Found:
    mask = Image.fromarray(made.pixels(5, MASK))
    mask.save(made.rename(5, MASK, ".jpg"))
    return {("E-LOSSY", made.rows[5][MASK])}


def float_values(value: float) -> Callable[[PhantomSet], Found]:
    def plant(made: PhantomSet) -> Found:
        pixels = made.pixels(0).astype(np.float32) / 255
        pixels[7, 9] = value
        Image.fromarray(pixels).save(made.rename(0, IMAGE, ".tif"))
        return {("E-NONFINITE" if not np.isfinite(value) else "E-FORMAT", made.rows[0][IMAGE])}

    return plant


def constant(made: PhantomSet) -> Found:
    return {("W-CONSTANT", made.save(0, IMAGE, np.full((64, 64), 7, np.uint8)))}


def sized(height: int, width: int, *codes: str, mask_code: str) -> Callable[[PhantomSet], Found]:
    """A picture of that size, with a mask whose first column is foreground."""

    def plant(made: PhantomSet) -> Found:
        column = np.zeros((height, width), np.uint8)
        column[:, 0] = 255
        pixels = (np.arange(height * width) % 251).reshape(height, width).astype(np.uint8)
        path, mask = made.save(0, IMAGE, pixels), made.save(0, MASK, column)
        return {(code, path) for code in codes} | ({(mask_code, mask)} if mask_code else set())

    return plant


FAULTS: dict[str, Callable[[PhantomSet], Found]] = {
    "image missing": missing(IMAGE),
    "mask missing": missing(MASK),
    "three at once": two_at_once,
    "zero bytes": content(b""),
    "page as PNG": content(b"<!DOCTYPE html><html>not found</html>"),
    "Git LFS pointer": content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "text": content(b"to be added later\n"),
    "noise": content(bytes(range(256))),
    "folder": folder_instead,
    "suffix": wrong_suffix,
    "smaller mask": smaller_mask,
    "transposed mask": transposed_mask,
    "turned by EXIF": upright_by_exif,
    "several pages": frames(".tif"),
    "animated PNG": frames(".png"),
    "animated GIF": frames(".gif"),
    "mask of 0 and 1": mask_values("", lambda mask: mask // 255),
    "mask of 0 and 7": mask_values("", lambda mask: mask // 255 * 7),
    "mask of three values": mask_values("E-LABELS", lambda mask: np.where(np.eye(64) > 0, 128, mask)),
    "label map": mask_values("E-LABELS", lambda mask: np.where(np.eye(64) > 0, 2, mask // 255)),
    "empty mask": mask_values("W-EMPTY", np.zeros_like),
    "full mask": mask_values("W-FULL", lambda mask: np.full_like(mask, 255)),
    "mask of one pixel": mask_values("W-SPECK", single_pixel),
    "JPEG mask": jpeg_mask,
    "not a number": float_values(np.nan),
    "infinity": float_values(np.inf),
    "negative": float_values(-3.0),
    "constant": constant,
    "one pixel": sized(1, 1, "E-TINY", "W-CONSTANT", mask_code="W-FULL"),
    "one row": sized(1, 4096, "E-TINY", mask_code="W-SPECK"),
    "small": sized(24, 200, "W-TINY", mask_code=""),
}


@pytest.mark.parametrize("plant", FAULTS.values(), ids=list(FAULTS))
def test_a_planted_fault_is_the_only_finding(hearts: PhantomSet, plant: Callable[[PhantomSet], Found]) -> None:
    expected = plant(hearts)
    assert found(hearts.verify()) == expected


def test_the_true_type_and_the_transposition_are_told(hearts: PhantomSet) -> None:
    content(b"<html>")(hearts)
    transposed_mask(hearts)
    told = {finding.where: finding for finding in hearts.verify().findings}
    assert told[hearts.rows[2][IMAGE]].fact == "is an HTML page"
    turned = told[hearts.rows[0][MASK]]
    assert "is 48 × 64 (height × width)" in turned.fact and "is 64 × 48: it lies on its side" in turned.fact
    assert turned.cure == "transpose it" and turned.case_id == hearts.rows[0]["case_id"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="who runs this may read everything")
def test_no_permission(hearts: PhantomSet) -> None:
    hearts.path(0).chmod(0)
    assert found(hearts.verify(rehash=False)) == {("E-DECODE", hearts.rows[0][IMAGE])}


def test_a_huge_picture_is_refused_before_it_is_decoded(hearts: PhantomSet) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_001) * 1000)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    hearts.path(0).write_bytes(png)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert found(hearts.verify()) == {("E-HUGE", hearts.rows[0][IMAGE])}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 100e6  # decoded it would take 400 MB


# --- D3: damaged bytes


def report(path: Path, data: bytes) -> FileReport:
    path.write_bytes(data)
    return check_file((str(path.parent), path.name, IMAGE))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_pictures(hearts: PhantomSet, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(hearts.pixels(0)).save(path)
    data = path.read_bytes()
    sound = report(path, data)
    assert sound.faults == ()
    for length in np.random.default_rng(0).integers(1, len(data), 25):
        cut = report(path, data[:length])
        assert [fault.code for fault in cut.faults] == ["E-DECODE"], length
        assert cut.sha256 != sound.sha256


def test_flipped_bits_are_found_or_harmless(hearts: PhantomSet, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    data = hearts.path(0).read_bytes()
    sound = report(path, data)
    rng = np.random.default_rng(0)
    harmless = 0
    for offset, bit in zip(rng.integers(0, len(data), 200), rng.integers(0, 8, 200), strict=True):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << bit
        flipped = report(path, bytes(damaged))
        harmless += not flipped.faults
        assert flipped.faults or flipped.pixels == sound.pixels, (offset, bit)
        assert flipped.sha256 != sound.sha256
    assert harmless == 0


def test_a_changed_file_is_found_by_its_hash(hearts: PhantomSet) -> None:
    hearts.path(0).write_bytes(hearts.path(0).read_bytes() + b"\n")  # what follows the end of a PNG is not looked at
    assert found(hearts.verify(rehash=False)) == {("E-HASH", hearts.rows[0][IMAGE])}


# --- D8: leaks and duplicates


def same_bytes(made: PhantomSet) -> Found:
    shutil.copy(made.path(made.of_split("train")), made.path(made.of_split("test")))
    return {("E-LEAK-EXACT", later(made, "train", "test"))}


def later(made: PhantomSet, *splits: str) -> str:
    return made.rows[max(made.of_split(split) for split in splits)][IMAGE]


def same_pixels(made: PhantomSet) -> Found:
    pixels = made.pixels(made.of_split("train"))
    return {("E-LEAK-EXACT", made.save(made.of_split("test"), IMAGE, pixels, compress_level=1))}


def resized_copy(made: PhantomSet) -> Found:
    index = made.of_split("test")
    copy = Image.open(made.path(made.of_split("train"))).resize((90, 90))
    made.save(index, MASK, np.asarray(Image.open(made.path(index, MASK)).resize((90, 90), Image.Resampling.NEAREST)))
    copy.save(made.rename(index, IMAGE, ".jpg"), quality=70)
    return {("W-LEAK-NEAR", made.rows[index][IMAGE])}


def copy_within_a_split(made: PhantomSet) -> Found:
    first = made.of_split("train")
    second = made.other_group(first)
    made.save(second, IMAGE, np.clip(made.pixels(first) * 0.9 + 3, 0, 255).astype(np.uint8))
    return {("W-DUPLICATE", max(made.rows[index][IMAGE] for index in (first, second)))}


def group_in_two_splits(made: PhantomSet) -> Found:
    last = max(i for i, row in enumerate(made.rows) if row["group"] == made.rows[made.of_split("train")]["group"])
    made.rows[last]["split"] = "test"
    return {("E-LEAK-GROUP", made.rows[last][IMAGE])}


def shared_mask_file(made: PhantomSet) -> Found:
    first, second = sorted((made.of_split("train"), made.of_split("test")))
    made.rows[second][MASK] = made.rows[first][MASK]
    return {("E-LEAK-FILE", made.rows[first][MASK])}


LEAKS = [same_bytes, same_pixels, resized_copy, copy_within_a_split, group_in_two_splits, shared_mask_file]


@pytest.mark.parametrize("plant", LEAKS)
def test_a_planted_leak_is_the_only_finding(hearts: PhantomSet, plant: Callable[[PhantomSet], Found]) -> None:
    expected = plant(hearts)
    assert found(hearts.verify()) == expected


def test_one_file_in_two_splits(hearts: PhantomSet) -> None:
    first, second = sorted((hearts.of_split("train"), hearts.of_split("test")))
    hearts.rows[second][IMAGE] = hearts.rows[first][IMAGE]
    # It is two cases of one task, too.
    path = hearts.rows[first][IMAGE]
    assert found(hearts.verify()) == {("E-LEAK-FILE", path), ("E-DATALIST", LIST)}


def test_tasks_that_share_pictures_but_not_splits(phantoms: Path, tmp_path: Path) -> None:
    made = PhantomSet(tmp_path / "set", phantoms, ("LA", "LV"))
    ventricle = [row for row in made.rows if row["task"] == "left ventricle" and row["split"] == "train"]
    for row in ventricle:
        row["split"] = "test"
    expected = {(code, row[IMAGE]) for row in ventricle for code in ("E-LEAK-TASK", "E-LEAK-GROUP")}
    assert found(made.verify()) == expected and ventricle


# --- D10: the datalist itself


def entry(**changes: Any) -> Callable[[PhantomSet], None]:
    return lambda made: made.rows[1].update(changes)


def repeat_id(made: PhantomSet) -> None:
    made.rows[1]["case_id"] = made.rows[0]["case_id"]


def clash_of_case(made: PhantomSet) -> None:
    made.rows[1]["case_id"] = made.rows[0]["case_id"].upper()


ENTRIES: dict[str, tuple[Callable[[PhantomSet], Any], str]] = {
    "unknown key": (entry(imgae="a.png"), "unknown key 'imgae'"),
    "absolute path": (entry(image="/a.png"), "image '/a.png' is not a relative path"),
    "parent folder": (entry(mask="LA/../a.png"), "mask 'LA/../a.png' is not a relative path"),
    "unknown task": (entry(task="left atrum"), "unknown task 'left atrum'"),
    "unknown split": (entry(split="tset"), "unknown split 'tset'"),
    "missing key": (lambda made: made.rows[1].pop("group"), "has no key 'group'"),
    "repeated id": (repeat_id, "is there twice"),
    "clash of upper and lower case": (clash_of_case, "is there twice"),
    "not an object": (lambda made: made.rows.__setitem__(1, 7), "is not an object"),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("plant,fact", ENTRIES.values(), ids=list(ENTRIES))
def test_a_bad_entry_is_a_finding_and_the_rest_is_checked(
    hearts: PhantomSet, plant: Callable[[PhantomSet], Any], fact: str
) -> None:
    hearts.path(5, MASK).unlink()
    plant(hearts)
    verification = hearts.verify(rehash=False)
    assert found(verification) == {("E-DATALIST", LIST), ("E-MISSING", hearts.rows[5][MASK])}
    told = next(finding for finding in verification.findings if finding.code == "E-DATALIST")
    assert fact in told.fact and "case 2" in told.fact and told.cure
    assert verification.sha256 == ""


def test_every_bad_entry_is_told_with_its_line(hearts: PhantomSet) -> None:
    for index, row in enumerate(hearts.rows):
        row["task"] = f"task {index}"
    facts = [finding.fact for finding in hearts.verify(rehash=False).findings]
    assert len(facts) == 8
    lines = (hearts.folder / LIST).read_text().splitlines()
    for index, fact in enumerate(facts):
        line = int(fact.removeprefix("line ").partition(",")[0])
        assert f"case {index + 1} (" in fact and hearts.rows[index]["case_id"] in lines[line - 1]


@pytest.mark.parametrize(
    "text,fact",
    [
        ('{"format": "propl-datalist/1",\n "name" 2}', "line 2: is not valid JSON"),
        ("", "is empty"),
        ("[]", "not an object"),
        ('{"format": "propl-datalist/1", "name": "x", "cases": []}', "holds no case"),
        ('{"format": "propl-datalist/9", "name": "x", "cases": []}', "has format 'propl-datalist/9'"),
    ],
)
def test_a_file_that_is_no_datalist(hearts: PhantomSet, text: str, fact: str) -> None:
    (hearts.folder / LIST).write_text(text)
    (finding,) = verify_datalist(hearts.folder / LIST, processes=1).findings
    assert (finding.code, finding.where) == ("E-DATALIST", LIST) and fact in finding.fact
