"""Names of formats, packages that are missing, and what every format keeps to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from format_samples import drawn, filled

from propl_monai.errors import ProPLError
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.registry import NAMES, find_format, format_names


def test_names() -> None:
    assert NAMES == ("png", "nifti", "nrrd", "dicom-seg", "coco", "yolo", "cvat")
    assert format_names("cvat, PNG,yolo") == format_names(["yolo", "cvat,png", "png"]) == ["png", "yolo", "cvat"]
    with pytest.raises(ProPLError, match="--format: unknown format 'nifty'; did you mean 'nifti'"):
        format_names(["png", "nifty"])
    with pytest.raises(ProPLError, match="--format: names no format"):
        format_names(" ,")


@pytest.mark.parametrize(("name", "module", "package"), [
    ("nrrd", "nrrd", "nrrd"), ("dicom-seg", "highdicom", "highdicom"), ("coco", "pycocotools.mask", "pycocotools"),
])  # fmt: skip
def test_a_package_that_is_missing_is_named_with_its_extra(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"--format {name}: needs {package}, which is not installed; pip install 'propl-monai\[formats\]'"
    with pytest.raises(ProPLError, match=message):
        format_names(name)
    assert format_names("nifti,yolo,cvat") == ["nifti", "yolo", "cvat"]  # which need none


@pytest.mark.parametrize("name", NAMES[1:])
def test_what_a_journal_keeps_is_json_and_is_there_where_a_file_is_for_the_folder(name: str, tmp_path: Path) -> None:
    one = find_format(name)
    pytest.importorskip(one.package or "json")
    assert one.name == name
    part = one.part(filled(tmp_path / "a.avi", drawn()))
    assert json.loads(json.dumps(part)) == part
    assert bool(one.shared) == bool(one.whole(part))


def test_a_format_by_itself_writes_nothing_and_refuses_nothing(tmp_path: Path) -> None:
    masks = filled(tmp_path / "a.avi", drawn())
    one = Format()
    one.check(masks.path, masks.name)
    assert (one.require(), one.files(masks), one.part(masks), one.whole([])) == (None, {}, [], b"")
