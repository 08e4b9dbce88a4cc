"""Folders of results and of masks are told from folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from propl_monai.common.originals import no_originals


def make(folder: Path, verb: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if verb:
        (folder / "run.json").write_text(json.dumps({"verb": verb}))
    return folder


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("predict", "holds results of an earlier prediction"),
        ("ef", "holds pictures that `propl ef` has drawn in"),
        ("frames", ""),
        ("crop", ""),
        ("", ""),
    ],
)
def test_results_by_their_run_json(tmp_path: Path, verb: str, says: str) -> None:
    for named in (False, True):
        reason = no_originals(make(tmp_path / "masks", verb), named)
        assert reason == (f"is passed over, as it {says}" if says else "")


@pytest.mark.parametrize("beside", ["images", "Images", "img"])
@pytest.mark.parametrize("name", ["masks", "Mask", "labels", "gt", "Segmentations"])
def test_masks_lie_beside_pictures(tmp_path: Path, name: str, beside: str) -> None:
    folder = make(tmp_path / name)
    assert no_originals(folder) == ""
    make(tmp_path / beside)
    assert no_originals(folder) == "is passed over, as it holds masks"
    assert no_originals(folder, named=True) == ""


@pytest.mark.parametrize("name", ["labelled", "unlabelled", "patient", "images", "masked scans"])
def test_other_names_are_pictures(tmp_path: Path, name: str) -> None:
    make(tmp_path / "images")
    assert no_originals(make(tmp_path / name)) == ""


def test_labels_of_monai_label_and_results_of_more_verbs(tmp_path: Path) -> None:
    labels, cropped = make(tmp_path / "labels"), make(tmp_path / "cropped", "crop")
    assert no_originals(labels) == no_originals(cropped) == ""
    (tmp_path / "datastore_v2.json").write_text("{}")
    assert no_originals(labels) == "is passed over, as it holds masks"
    assert no_originals(cropped, named=True, verbs=["crop"]) == "is passed over, as it holds results of `propl crop`"
