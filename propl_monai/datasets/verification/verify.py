"""Verify a datalist: check its rules and every file once, then compare images, masks and splits."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

from propl_monai.common.findings import Finding
from propl_monai.data.cases import Case, Coverage
from propl_monai.data.datalist import Datalist, examine
from propl_monai.datasets.verification.duplicates import Shown, find_duplicates
from propl_monai.datasets.verification.file_checks import IMAGE, MASK, FileReport, check_file
from propl_monai.datasets.verification.findings import Verification, in_order
from propl_monai.datasets.verification.record import objection, write_record
from propl_monai.errors import ProPLError

FILES_PER_PROCESS = 200  # a process takes about as long to start as it takes to check so many files
Progress = Callable[[int, int], None]
Reports = Mapping[tuple[str, str], FileReport]  # by role and path
logger = logging.getLogger(__name__)


def verify(datalist: Datalist, processes: int | None = None, progress: Progress | None = None) -> Verification:
    """Check every file of a datalist that keeps its rules.

    Args:
        datalist: what to check.
        processes: that decode; None takes one for each core that this process may use, 1 stays in this process.
        progress: is called with the number of files done and of all.
    """
    return _verify(datalist.name, datalist.root, datalist.cases, (), processes, progress)


def verify_datalist(
    file: Path, root: Path | None = None, processes: int | None = None, progress: Progress | None = None
) -> Verification:
    """Check a datalist file, its rules and its files; what breaks a rule is a finding, and the rest is checked still.

    Args:
        file: a JSON file as `Datalist.write` makes it.
        root: folder of the pictures; the folder of the file itself when None.
        processes, progress: see `verify`.
    """
    root = root or file.parent
    if not root.is_dir():
        raise ProPLError(root, "is not a folder", "name the folder that the paths of the datalist start from")
    cases, broken = examine(file)
    return _verify(file.name, root, cases, broken, processes, progress)


def require_verified(datalist: Datalist, datalist_file: str | Path, allow_unverified: bool = False) -> None:
    """Refuse a datalist that was never verified, has errors, or was changed since, as its files may have been.

    Args:
        datalist: as read from the file.
        datalist_file: beside which the record is.
        allow_unverified: warn instead.
    """
    error = objection(datalist, datalist_file)
    if error is None:
        return
    if not allow_unverified:
        raise error
    logger.warning("unverified data are used: %s: %s", error.where, error.fact)


def verify_now(datalist: Datalist, datalist_file: str | Path, processes: int | None = None) -> None:
    """Verify a datalist that this run has just built, unless a record beside it says that this was done.

    Args:
        datalist: what to check.
        datalist_file: where it was written to; the record comes beside it.
        processes: see `verify`.
    """
    if objection(datalist, datalist_file) is None:
        logger.info("%s is as it was verified", datalist_file)
        return
    verification = verify(datalist, processes)
    write_record(datalist_file, verification)
    for line in verification.to_text().splitlines()[:2]:
        logger.info("%s", line)
    for _, found in groupby(verification.warnings, key=lambda finding: finding.code):
        lines = replace(verification, findings=tuple(found)).to_text(1).splitlines()
        logger.warning("%s", "\n".join(line for line in lines[2:] if line))
    if verification.errors:
        report = replace(verification, findings=verification.errors).to_text()
        cure = "fix or drop what is named, or give --allow_unverified true"
        raise ProPLError(datalist_file, f"{len(verification.errors)} errors were found\n{report}\n", cure)


def _verify(
    name: str,
    root: Path,
    cases: tuple[Case, ...],
    broken: Sequence[Finding],
    processes: int | None,
    progress: Progress | None,
) -> Verification:
    """Check the valid cases of a datalist; what breaks its rules was found before."""
    clock = time.monotonic()
    reports = check_files(cases, root, processes, progress)
    found = [*_of_files(cases, reports), *_of_pairs(cases, reports), *_of_mask_files(cases)]
    found += [*find_duplicates(_pictures(cases, reports)), *broken]
    files = {report.path: report.stamp for report in reports.values() if report.stamp is not None}
    sha256 = "" if broken else Datalist(root, cases, name).sha256
    covered = Coverage.of(cases)
    seconds = time.monotonic() - clock
    return Verification(name, in_order(found), len(cases), files, sha256, seconds, covered.grouped, covered.spaced)


def check_files(cases: Sequence[Case], root: Path, processes: int | None, progress: Progress | None) -> Reports:
    """Check each file once, however many cases share it."""
    roles = [(IMAGE, case.image) for case in cases] + [(MASK, case.mask) for case in cases if case.mask is not None]
    jobs = [(str(root), path, role) for role, path in dict.fromkeys(roles)]
    reports = {}
    for done, report in enumerate(_run(jobs, _workers(processes, len(jobs))), 1):
        reports[report.role, report.path] = report
        if progress is not None:
            progress(done, len(jobs))
    return reports


def _workers(processes: int | None, files: int) -> int:
    if processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(cores, files // FILES_PER_PROCESS))
    if processes < 1:
        raise ProPLError("processes", f"is {processes}", "give 1 or more")
    return processes


def _run(jobs: list[tuple[str, str, str]], workers: int) -> Iterator[FileReport]:
    if workers == 1:
        yield from map(check_file, jobs)
        return
    # Spawned, not forked: a training that verifies its data has threads already, and those do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(check_file, jobs, chunksize=16)
        except BrokenProcessPool as error:
            fact = "a process that decodes pictures was killed, most likely for want of memory"
            raise ProPLError("verification", fact, "use fewer processes") from error


def _of_files(cases: Sequence[Case], reports: Reports) -> Iterator[Finding]:
    """The faults of each file, reported for the first case that uses it, and files that were changed."""
    seen: set[tuple[str, str]] = set()
    for case in cases:
        for role, path, sha256 in ((IMAGE, case.image, case.image_sha256), (MASK, case.mask, case.mask_sha256)):
            if path is None or (role, path) in seen:
                continue
            seen.add((role, path))
            report = reports[role, path]
            yield from (replace(fault, case_id=case.case_id) for fault in report.faults)
            if report.sha256 and report.sha256 != sha256:
                sums = f"is {report.sha256[:12]}..., the datalist says {str(sha256)[:12]}..."
                cure = "restore the file, or make the datalist again"
                yield Finding("E-HASH", path, f"was changed: its SHA-256 {sums}", cure, case.case_id)


def _of_pairs(cases: Iterable[Case], reports: Reports) -> Iterator[Finding]:
    """Masks of another size than their image, and unequal masks of equal images of one task and split."""
    first: dict[tuple[str, str, bytes], Case] = {}
    for case in cases:
        if case.mask is None:
            continue
        image, mask = reports[IMAGE, case.image], reports[MASK, case.mask]
        if image.size and mask.size and image.size != mask.size:
            sizes = [f"{height} × {width}" for height, width in (mask.size, image.size)]
            fact = f"is {sizes[0]} (height × width), its image {case.image} is {sizes[1]}"
            cure = "export the mask again in the image's size, or drop the case"
            if mask.size == image.size[::-1]:
                fact += ": it lies on its side"
                cure = "transpose it"
                if image.orientation >= 5:
                    fact += ", as the image does before its EXIF orientation is applied"
                    cure = "prepare the folder with --option masks=stored, which turns masks as their images"
            yield Finding("E-SIZE", case.mask, fact, cure, case.case_id)
        if image.pixels and mask.pixels:
            other = first.setdefault((case.task, case.split, image.pixels), case)
            if reports[MASK, str(other.mask)].pixels != mask.pixels:
                fact = f"differs from {other.mask}, but {case.image} shows the same pixels as {other.image}"
                yield Finding("W-MASKS", case.mask, fact, "keep the right mask alone, or drop both cases", case.case_id)


def _of_mask_files(cases: Iterable[Case]) -> Iterator[Finding]:
    """Mask files that cases of two splits share; the datalist's own rules look at images only."""
    first: dict[str, Case] = {}
    for case in cases:
        if case.mask is None:
            continue
        other = first.setdefault(case.mask, case)
        if other.split != case.split:
            fact = f"is the mask of {other.case_id} in {other.split} and of {case.case_id} in {case.split}"
            yield Finding("E-LEAK-FILE", case.mask, fact, "give each image its own mask", case.case_id)


def _pictures(cases: Iterable[Case], reports: Reports) -> Iterator[Shown]:
    """Each image file once; the same bytes under several tasks in several folders are one picture too."""
    known: dict[str, set[tuple[tuple[str, str], str]]] = defaultdict(set)
    for case in cases:
        report, group = reports[IMAGE, case.image], (case.source, case.group)
        if not report.pixels or (group, case.split) in known[report.sha256]:
            continue
        known[report.sha256].add((group, case.split))
        yield Shown(case.image, case.case_id, group, case.split, report.sha256, report.pixels, report.thumbnail)
