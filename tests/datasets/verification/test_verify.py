"""Verification as a whole: its reports, its processes, and what the log and the errors of a run tell of it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propl_monai.common.files import file_sha256
from propl_monai.common.findings import Finding
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.verification import verify as module
from propl_monai.datasets.verification.findings import CODES, Verification, in_order
from propl_monai.datasets.verification.record import read_record
from propl_monai.datasets.verification.verify import verify, verify_datalist, verify_now
from propl_monai.errors import ProPLError


def make_list(root: Path, count: int) -> Datalist:
    """Pictures and masks on disk; the first picture also under a second task, in the same file."""
    rng = np.random.default_rng(0)
    cases = []
    for index in range(count):
        for kind in ("images", "masks"):
            (root / kind).mkdir(exist_ok=True)
        image, mask = root / "images" / f"{index}.png", root / "masks" / f"{index}.png"
        Image.fromarray(rng.integers(0, 255, (40, 36), dtype=np.uint8)).save(image)
        Image.fromarray(np.triu(np.full((40, 36), 255, np.uint8))).save(mask)
        paths = (f"images/{index}.png", f"masks/{index}.png")
        hashes = (file_sha256(image), file_sha256(mask))
        cases.append(Case(f"a/{index}", *paths, "left atrium", "S", f"g{index}", "train", *hashes))
    cases.append(replace(cases[0], case_id="b/0", mask=None, mask_sha256=None, task="myocardium"))
    return Datalist(root, tuple(cases), "phantoms")


def test_each_file_is_decoded_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = verify(make_list(tmp_path, 3), processes=1, progress=lambda done, total: seen.append((done, total)))
    assert made.findings == () and made.cases == 4
    assert set(made.files) == {f"{kind}/{index}.png" for kind in ("images", "masks") for index in range(3)}
    assert seen == [(number, 6) for number in range(1, 7)]
    size, changed = made.files["images/0.png"]
    status = (tmp_path / "images" / "0.png").stat()
    assert (size, changed) == (status.st_size, status.st_mtime_ns)


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    made = make_list(tmp_path, 4)
    (tmp_path / "masks" / "1.png").unlink()
    (tmp_path / "images" / "2.png").write_text("<html>")
    alone, together = verify(made, processes=1), verify(made, processes=2)
    assert alone.findings == together.findings and len(alone.findings) == 3
    assert alone.files == together.files
    with pytest.raises(ProPLError, match="processes: is 0; give 1 or more"):
        verify(made, processes=0)


def test_small_sets_stay_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert [module._workers(None, files) for files in (0, 300, 900, 10_000)] == [1, 1, 4, 8]


def test_text_groups_by_code_and_tells_the_cure_once(tmp_path: Path) -> None:
    made = make_list(tmp_path, 8)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    (tmp_path / "images" / "3.png").write_bytes(b"")
    lines = verify(made, processes=1).to_text().splitlines()
    assert lines[0].startswith("phantoms: 9 cases, 8 files, ") and lines[0].endswith("9 errors, 0 warnings")
    assert lines[1] == ("group (patient, examination or video): 9 of 9 cases. Pixel spacing: 0 of 9 cases")
    assert lines[3] == "E-MISSING  8  a file that is not there"
    assert lines[4] == "  masks/0.png: the mask does not exist"
    assert [line.startswith("    -> add the file") for line in lines].count(True) == 1
    assert "  and 3 more" in lines
    assert lines[-3:-1] == [
        "E-DECODE  1  a file that cannot be read as a picture",
        "  images/3.png: is empty (0 bytes)",
    ]


def test_json_holds_everything(tmp_path: Path) -> None:
    made = make_list(tmp_path, 2)
    (tmp_path / "masks" / "0.png").unlink()
    made.write(tmp_path / "list.json")
    verification = verify_datalist(tmp_path / "list.json")
    content = json.loads(json.dumps(verification.to_json()))
    assert (content["datalist"], content["datalist_sha256"]) == ("list.json", made.sha256)
    assert (content["cases"], content["files"], content["errors"], content["warnings"]) == (3, 3, 1, 0)
    assert content["counts"] == {"E-MISSING": 1}
    assert (content["cases_with_group"], content["cases_with_spacing"]) == (3, 0)
    (finding,) = content["findings"]
    assert finding["path"] == "masks/0.png" and finding["case_id"] == "a/0"
    assert set(finding) == {"code", "path", "case_id", "fact", "cure"} and finding["code"] in CODES


def test_errors_come_first_and_nothing_twice() -> None:
    given = [Finding(code, path, "f", "c") for code, path in (("W-EMPTY", "a"), ("E-SIZE", "b"), ("E-SIZE", "a"))]
    ordered = in_order([*given, given[0]])
    assert [(finding.code, finding.where) for finding in ordered] == [
        ("E-SIZE", "a"),
        ("E-SIZE", "b"),
        ("W-EMPTY", "a"),
    ]
    made = Verification("x", ordered, 1, {}, "", 0)
    assert made.errors == ordered[:2] and made.warnings == ordered[2:] and made.counts == {"E-SIZE": 2, "W-EMPTY": 1}
    assert str(ordered[0]) == "E-SIZE a: f; c"


def test_root_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    make_list(tmp_path / "data", 2).write(tmp_path / "list.json")
    assert {finding.code for finding in verify_datalist(tmp_path / "list.json").findings} == {"E-MISSING"}
    assert verify_datalist(tmp_path / "list.json", tmp_path / "data").findings == ()
    with pytest.raises(ProPLError, match="nowhere: is not a folder; name the folder that the paths"):
        verify_datalist(tmp_path / "list.json", tmp_path / "nowhere")


def test_a_run_refuses_errors_and_logs_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make_list(tmp_path, 3)
    mask = tmp_path / "masks" / "1.png"
    Image.fromarray(np.zeros((40, 36), np.uint8)).save(mask)
    made = Datalist(
        tmp_path,
        tuple(replace(case, mask_sha256=file_sha256(mask)) if case.case_id == "a/1" else case for case in made.cases),
        "phantoms",
    )
    file = tmp_path / "list.json"
    made.write(file)
    with caplog.at_level(logging.INFO):
        verify_now(made, file)
    assert "phantoms: 4 cases, 6 files" in caplog.text
    assert "W-EMPTY  1  a mask without foreground\n  masks/1.png: has no foreground" in caplog.text
    assert read_record(file)["findings"] == {"W-EMPTY": 1}  # type: ignore[index]
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(ProPLError) as caught:
        verify_now(made, file)
    told = str(caught.value)
    assert "1 errors were found" in told and "images/2.png: the image does not exist" in told and "W-EMPTY" not in told
    assert "--allow_unverified true" in told
