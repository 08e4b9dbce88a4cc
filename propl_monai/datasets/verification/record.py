"""The file beside a datalist that says it was verified, so that not every run decodes every picture again.

It holds the hash of the datalist, the number of findings, and size and time of change of every file: later changes are
noticed without reading the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import propl_monai
from propl_monai.common.files import write_atomically
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.verification.file_checks import file_stamp
from propl_monai.datasets.verification.findings import Verification
from propl_monai.errors import ProPLError

SCHEMA = "propl-verified/1"
SUFFIX = ".verified.json"
_AGAIN = "remove it, and verify the datalist again"
_KEYS = {"schema": str, "version": str, "verified": str, "datalist_sha256": str, "findings": dict, "files": dict}


def record_path(datalist_file: str | Path) -> Path:
    """Where the record of a datalist is: `a.json` has `a.verified.json`."""
    return Path(datalist_file).with_suffix(SUFFIX)


def write_record(datalist_file: str | Path, verification: Verification) -> Path:
    """Write the record of a verification beside its datalist; whole or not at all.

    Returns:
        Its path.
    """
    content = {
        "schema": SCHEMA,
        "version": propl_monai.__version__,
        "verified": datetime.now(UTC).isoformat(timespec="seconds"),
        "datalist_sha256": verification.sha256,
        "findings": verification.counts,
        "files": verification.files,
    }
    path = record_path(datalist_file)
    write_atomically(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())
    return path


def read_record(datalist_file: str | Path) -> dict[str, Any] | None:
    """The record of a datalist; None when it was never verified."""
    path = record_path(datalist_file)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProPLError(path, "is not a record of a verification", _AGAIN) from error
    whole = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in _KEYS.items())
    if not whole or content["schema"] != SCHEMA:
        raise ProPLError(path, "is not a record of a verification by this version", _AGAIN)
    return content


def is_recorded(datalist: Datalist, datalist_file: str | Path) -> bool:
    """Whether the record beside a datalist is of exactly these cases, with or without errors."""
    try:
        record = read_record(datalist_file)
    except ProPLError:
        return False
    return record is not None and record["datalist_sha256"] == datalist.sha256


def objection(datalist: Datalist, datalist_file: str | Path) -> ProPLError | None:
    """Why a datalist may not be trained on, from its record and the times of its files; None when it may."""
    elsewhere = "" if datalist.root.resolve() == Path(datalist_file).resolve().parent else f" --root {datalist.root}"
    cure = f"run `propl verify {datalist_file}{elsewhere}` and fix what it finds, or give --allow_unverified true"
    try:
        record = read_record(datalist_file)
    except ProPLError as error:
        return ProPLError(error.where, error.fact, cure)
    if record is None:
        return ProPLError(datalist_file, "was never verified", cure)
    if record["datalist_sha256"] != datalist.sha256:
        return ProPLError(datalist_file, "was changed since it was verified", cure)
    errors = {code: count for code, count in record["findings"].items() if code.startswith("E-")}
    if errors:
        counts = ", ".join(f"{count} {code}" for code, count in errors.items())
        return ProPLError(datalist_file, f"has errors that its verification found: {counts}", cure)
    changed = next(_changed(datalist, record["files"]), None)
    return ProPLError(*changed, cure) if changed else None


def _changed(datalist: Datalist, stamps: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files that are not as they were, and in what way."""
    names = dict.fromkeys(name for case in datalist.cases for name in (case.image, case.mask) if name is not None)
    for name in names:
        path = Path(datalist.root, name)
        try:
            stamp = file_stamp(path)
        except OSError as error:
            yield path, f"cannot be found any more ({error.strerror})"
            continue
        if stamps.get(name) != list(stamp):
            yield path, "was changed since it was verified" if name in stamps else "was not verified"
