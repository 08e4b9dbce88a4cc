"""What holds on real images, wherever PROPL_DATA points to a folder in the plain layout; skipped without it."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from propl_monai.data.datalist import Datalist, as_items
from propl_monai.data.splits import labelled_images
from propl_monai.datasets.sources.folder import read_folder
from propl_monai.datasets.verification.verify import verify

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not os.environ.get("PROPL_DATA"), reason="PROPL_DATA is not set"),
]


@pytest.fixture(scope="module")
def datalist() -> Datalist:
    return read_folder(Path(os.environ["PROPL_DATA"]))


@pytest.mark.exhaustive
def test_every_file_is_sound(datalist: Datalist) -> None:
    assert verify(datalist).errors == ()


def test_no_patient_or_picture_is_in_two_splits_of_any_task(datalist: Datalist) -> None:
    for key in (lambda case: (case.source, case.group), lambda case: case.image_sha256):
        splits: dict = {}
        for case in datalist.cases:
            splits.setdefault(key(case), set()).add(case.split)
        assert all(len(found) == 1 for found in splits.values())


def test_labelled_fractions_are_nested_and_near_their_size(datalist: Datalist) -> None:
    chosen = [labelled_images(datalist.cases, fraction) for fraction in ("1/16", "1/8", "1/4")]
    assert chosen[0] < chosen[1] < chosen[2]
    train = sum(case.split == "train" for case in datalist.cases)
    for ids, fraction in zip(chosen, (1 / 16, 1 / 8, 1 / 4), strict=True):
        assert 0.6 * fraction < len(ids) / train < 1.5 * fraction


def test_pictures_and_masks_go_through_training_and_evaluation(datalist: Datalist) -> None:
    from propl_monai.data import transforms

    first = {case.task: case for case in datalist.cases}
    items = as_items(first.values(), datalist.root)
    train = transforms.training((96, 96), "half", photometric=0.5, flip=0.5, strong_view=0.5)
    evaluate = transforms.evaluation((96, 96), "half")
    for item in items:
        view = train(item)
        assert view["image"].shape == view["image_strong"].shape == view["label"].shape == (1, 96, 96)
        assert view["label"].sum() > 0
        full = evaluate(item)
        assert tuple(full["label"].shape[-2:]) == tuple(full["original_size"])


def test_head_circumference_of_the_masks_is_the_published_one(datalist: Datalist) -> None:
    """`hc_mm` of the manifest of HC18; the masks are a millimetre larger, probably by the line drawn around each head."""
    from propl_monai.images import read_mask
    from propl_monai.inference.measurements import measure

    with (datalist.root / "FH" / "HC18" / "manifest.csv").open(newline="") as stream:
        published = {row["name"]: float(row["hc_mm"]) for row in csv.DictReader(stream)}
    heads = [case for case in datalist.cases if case.source == "HC18" and case.mask]
    errors = []
    for case in heads:
        found = measure(read_mask(datalist.root / str(case.mask)), case.pixel_spacing_mm, case.task)
        assert found.unit == "mm" and found.head_circumference is not None
        errors.append(found.head_circumference / published[Path(case.image).stem] - 1)
    assert len(errors) == len(published) and max(map(abs, errors)) < 0.03
    assert sum(map(abs, errors)) / len(errors) < 0.01
