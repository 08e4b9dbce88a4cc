"""Rows D1 to D12: faults of pictures, masks and datalists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reliability.trials import Room, Row, Tally
from benchmarks.verify import GOALS, make_list, make_pairs, seconds

DAMAGED = "tests/datasets/test_damaged_data.py"
READ = "tests/images/test_read.py"
PLANTED = f"{DAMAGED}::test_a_planted_fault_is_the_only_finding"


def planted(*names: str) -> list[str]:
    """Faults of `test_damaged_data.py` by name."""
    return [f"{PLANTED}[{name}]" for name in names]


def picture(folder: Path, suffix: str) -> bytes:
    """A phantom as a file of that suffix."""
    from propl_monai.datasets.phantoms.phantom import make_phantom

    path = folder / f"whole{suffix}"
    Image.fromarray(make_phantom("heart", 0, 0, 96).image).save(path)
    return path.read_bytes()


def places(size: int, count: int) -> Iterator[int]:
    """Random places in so many bytes, the same ones in every run."""
    yield from np.random.default_rng(0).integers(1, size, count).tolist()


def damaged_bytes(room: Room) -> Tally:
    """Cut files must be refused by verification; flipped bits refused, or harmless: pixels equal to those of the file."""
    from propl_monai.datasets.verification.file_checks import IMAGE, check_file

    tally, harmless = Tally(), 0
    for suffix in (".png", ".jpg"):
        data = picture(room.folder, suffix)
        path = room.folder / f"a{suffix}"
        path.write_bytes(data)
        sound = check_file((str(room.folder), path.name, IMAGE))
        tally.trial(sound.faults == (), f"{path.name} as it was made is not sound")
        for length in places(len(data), room.times(200)):
            path.write_bytes(data[:length])
            report = check_file((str(room.folder), path.name, IMAGE))
            found = [fault.code for fault in report.faults] == ["E-DECODE"] and report.sha256 != sound.sha256
            tally.trial(found, f"{path.name} cut after {length} of {len(data)} bytes")
        for place in places(len(data), room.times(200)) if suffix == ".png" else ():
            flipped = bytearray(data)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            report = check_file((str(room.folder), path.name, IMAGE))
            harmless += not report.faults
            safe = bool(report.faults) or report.pixels == sound.pixels
            tally.trial(safe and report.sha256 != sound.sha256, f"{path.name} with a bit flipped at {place}")
    tally.notes.append(f"{harmless} flipped bits of PNG left the pixels as they were; the hash finds all")
    return tally


def large_list(room: Room) -> Tally:
    """A datalist of 100,000 rows is read within 5 seconds of one core."""
    from propl_monai.data.datalist import Datalist

    make_list(room.folder / "list.json", 100_000)
    computing = fastest(lambda: Datalist.read(room.folder / "list.json"))
    return in_time(computing, GOALS["datalist_seconds"], f"100,000 rows in {computing:.1f} s of one core")


def speed(room: Room) -> Tally:
    """Verification of pairs of 448 × 560 pixels."""
    from propl_monai.datasets.verification.verify import verify

    pairs = room.times(96)
    datalist = make_pairs(room.folder, pairs)
    each = 1000 * fastest(lambda: verify(datalist, processes=1)) / pairs
    return in_time(each, GOALS["ms_per_pair_per_core"], f"{each:.1f} ms of one core per pair, of {pairs}")


def fastest(work: Callable[[], Any]) -> float:
    """Seconds of one core that a call takes, at best of three: the first pays for imports and the disk's cache."""
    return min(seconds(work)[1] for _ in range(3))


def in_time(found: float, goal: float, words: str) -> Tally:
    """One trial of speed. Where more processes run than there are cores, even their own time grows: nothing is shown then."""
    tally, load = Tally(notes=[words]), os.getloadavg()[0]
    if found > goal and load > (os.cpu_count() or 1) + 1:
        tally.not_run = f"speed, as the machine was busy (load {load:.0f} on {os.cpu_count()} cores)"
    else:
        tally.trial(found <= goal, f"more than {goal:g}")
    return tally


ROWS = (
    Row(
        "D1",
        "image missing, mask missing, mask without image",
        tests=[
            *planted("image missing", "mask missing", "three at once"),
            "tests/datasets/sources/test_folder.py::test_masks_under_another_name_are_not_left_out",
            "tests/datasets/sources/test_folder.py::test_bad_folders_are_named",
            "tests/datasets/sources/test_folder.py::test_all_faults_are_told_in_one_run",
        ],
    ),
    Row(
        "D2",
        "empty file, HTML named .png, wrong suffix, no permission",
        tests=[
            *planted("zero bytes", "page as PNG", "Git LFS pointer", "text", "noise", "folder", "suffix"),
            f"{DAMAGED}::test_the_true_type_and_the_transposition_are_told",
            f"{DAMAGED}::test_no_permission",
            f"{READ}::test_refused_with_the_true_reason",
            f"{READ}::test_unreadable_file",
            f"{READ}::test_true_type_counts_not_the_name",
        ],
    ),
    Row(
        "D3",
        "PNG and JPEG cut at 200 places each, 200 flipped bits",
        damaged_bytes,
        [f"{DAMAGED}::test_a_changed_file_is_found_by_its_hash"],
    ),
    Row(
        "D4",
        "mask of another size or on its side, EXIF 1 to 8",
        tests=[
            *planted("smaller mask", "transposed mask", "turned by EXIF"),
            f"{READ}::test_all_orientations_come_out_upright",
            "tests/datasets/verification/test_pairs.py",
        ],
    ),
    Row(
        "D5",
        "unusual depths, colours and containers",
        tests=[
            *planted("several pages", "animated PNG", "animated GIF"),
            "tests/images/test_formats_table.py",
            "tests/images/test_misread.py",
            f"{READ}::test_odd_modes",
            f"{READ}::test_transparency_is_laid_on_black",
            f"{READ}::test_deep_integers_are_stretched_by_their_depth",
        ],
    ),
    Row(
        "D6",
        "masks of unusual values, empty, full, lossy",
        tests=[
            *planted("mask of 0 and 1", "mask of 0 and 7", "mask of three values", "label map", "empty mask"),
            *planted("full mask", "mask of one pixel", "JPEG mask"),
            f"{READ}::test_masks",
            f"{READ}::test_masks_of_more_values_are_refused",
            f"{READ}::test_lossy_masks_are_refused",
        ],
    ),
    Row(
        "D7",
        "NaN, infinity, constant, tiny, 20,000 × 20,000",
        tests=[
            *planted("not a number", "infinity", "negative", "constant", "one pixel", "one row", "small"),
            f"{DAMAGED}::test_a_huge_picture_is_refused_before_it_is_decoded",
            "tests/images/test_fuzzed_files.py::test_huge_sizes_are_refused_before_anything_is_allocated",
        ],
    ),
    Row(
        "D8",
        "copies and patients in two splits, near copies",
        tests=[
            f"{DAMAGED}::test_a_planted_leak_is_the_only_finding",
            f"{DAMAGED}::test_one_file_in_two_splits",
            f"{DAMAGED}::test_tasks_that_share_pictures_but_not_splits",
            "tests/datasets/verification/test_duplicates.py",
        ],
    ),
    Row(
        "D9",
        "DICOM of every kind, damaged or with patient names",
        tests=[
            *("tests/images/test_dicom.py", "tests/images/test_other_writers.py", "tests/images/test_volumes.py"),
            "tests/datasets/test_privacy.py",
        ],
    ),
    Row(
        "D10",
        "bad datalists; one of 100,000 rows",
        large_list,
        [
            f"{DAMAGED}::test_a_bad_entry_is_a_finding_and_the_rest_is_checked",
            f"{DAMAGED}::test_every_bad_entry_is_told_with_its_line",
            f"{DAMAGED}::test_a_file_that_is_no_datalist",
            "tests/data/test_datalist.py",
        ],
    ),
    Row("D11", "verification slower than 10 ms per pair", speed),
    Row(
        "D12",
        "10,000 mutated files of every format",
        tests=["tests/images/test_fuzzed_files.py::test_damaged_files_raise_nothing_but_our_error"],
        options=["HYPOTHESIS_PROFILE=long"],
    ),
)
