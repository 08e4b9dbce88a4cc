"""The record of a verification: what a run accepts by it, and each way in which it is refused."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from test_verify import make_list

import propl_monai
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.verification.record import is_recorded, read_record, record_path, write_record
from propl_monai.datasets.verification.verify import require_verified, verify_datalist
from propl_monai.errors import ProPLError


@pytest.fixture
def verified(tmp_path: Path) -> Path:
    """A datalist file of three pictures, with its record."""
    file = tmp_path / "list.json"
    make_list(tmp_path, 3).write(file)
    assert write_record(file, verify_datalist(file)) == tmp_path / "list.verified.json"
    return file


def test_the_record_holds_hash_counts_and_stamps(verified: Path) -> None:
    content = read_record(verified)
    assert content is not None
    assert content["datalist_sha256"] == Datalist.read(verified).sha256
    assert (content["findings"], content["version"]) == ({}, propl_monai.__version__)
    status = (verified.parent / "masks" / "2.png").stat()
    assert content["files"]["masks/2.png"] == [status.st_size, status.st_mtime_ns] and len(content["files"]) == 6


@pytest.mark.parametrize("name", ["a.json", "a.b.json", "a"])
def test_the_record_lies_beside_its_datalist(name: str) -> None:
    assert record_path(Path("x") / name) == Path("x") / (name.removesuffix(".json") + ".verified.json")


def test_a_verified_datalist_is_taken(verified: Path) -> None:
    datalist = Datalist.read(verified)
    require_verified(datalist, verified)
    assert is_recorded(datalist, verified)


def new_name(file: Path) -> None:
    content = json.loads(file.read_text())
    content["cases"][0]["group"] = "another"
    content["cases"][3]["group"] = "another"  # the same picture under another task
    file.write_text(json.dumps(content))


def later(file: Path) -> None:
    path = file.parent / "images" / "1.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def with_errors(file: Path) -> None:
    (file.parent / "masks" / "0.png").write_bytes(b"")
    write_record(file, verify_datalist(file))


def edit_record(**changes: object) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        path = record_path(file)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (lambda file: record_path(file).unlink(), r"list\.json: was never verified"),
    "changed datalist": (new_name, r"list\.json: was changed since it was verified"),
    "touched file": (later, r"images/1\.png: was changed since it was verified"),
    "removed file": (
        lambda file: (file.parent / "masks" / "1.png").unlink(),
        r"masks/1\.png: cannot be found any more",
    ),
    "errors": (with_errors, r"list\.json: has errors that its verification found: 1 E-DECODE"),
    "file not in the record": (edit_record(files={}), r"images/0\.png: was not verified"),
    "torn record": (lambda file: record_path(file).write_text('{"schema": '), "is not a record of a verification;"),
    "record of another version": (edit_record(schema="propl-verified/9"), "is not a record of .* by this version;"),
    "list as record": (lambda file: record_path(file).write_text("[]"), "is not a record of .* by this version;"),
}


@pytest.mark.parametrize("change,fact", REFUSALS.values(), ids=list(REFUSALS))
def test_what_is_refused(
    verified: Path, change: Callable[[Path], object], fact: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(verified)
    datalist = Datalist.read(verified)
    with pytest.raises(ProPLError, match=fact) as caught:
        require_verified(datalist, verified)
    assert f"run `propl verify {verified}`" in caught.value.cure and "--allow_unverified true" in caught.value.cure
    with caplog.at_level(logging.WARNING):
        require_verified(datalist, verified, allow_unverified=True)
    assert "unverified data are used" in caplog.text


def test_verifying_again_mends_it(verified: Path) -> None:
    later(verified)
    write_record(verified, verify_datalist(verified))
    require_verified(Datalist.read(verified), verified)


def test_a_broken_datalist_leaves_a_record_of_no_datalist(verified: Path) -> None:
    sound = Datalist.read(verified)
    verified.write_text("{")
    write_record(verified, verify_datalist(verified))
    assert not is_recorded(sound, verified)
    record_path(verified).write_text("{")
    assert not is_recorded(sound, verified)
