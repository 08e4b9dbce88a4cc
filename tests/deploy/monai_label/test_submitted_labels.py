"""Which label teaches which task, and what becomes of label files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_tools import phantom_items
from PIL import Image

from propl_monai.deploy.monai_label.lib.labels import Submitted, as_items, submitted, unlabelled
from propl_monai.tasks import find
from propl_monai.training.other_tasks import MOST_MEASURED, pictures_of_others

NODULE, GLAND = find("TN"), find("TG")


class Store:
    """As much of a MONAI Label datastore as is asked for: image -> tag -> what was sent with the label."""

    def __init__(self, folder: Path, labels: dict[str, dict[str, dict[str, Any]]]) -> None:
        self.folder, self.labels = folder, labels

    def list_images(self) -> list[str]:
        return list(self.labels)

    def get_image_uri(self, image_id: str) -> str:
        return str(self.folder / f"{image_id}.png")

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return dict.fromkeys(self.labels[image_id], image_id)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        return str(self.folder / "labels" / label_tag / f"{label_id}.png")

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return self.labels[label_id][label_tag]


def listed(*names: str) -> dict[str, Any]:
    return {"label_info": [{"name": name, "idx": number} for number, name in enumerate(names, start=1)]}


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        ({"thyroid_nodule": {}}, NODULE, ("thyroid_nodule", None)),
        ({"thyroid_nodule": {}}, GLAND, None),
        ({"final": listed("Thyroid nodule")}, NODULE, ("final", None)),
        ({"final": listed("thyroid_gland", "thyroid_nodule")}, NODULE, ("final", 2)),
        ({"final": listed("thyroid_gland", "thyroid_nodule")}, find("FH"), None),
        ({"final": {"model": "thyroid_nodule"}}, NODULE, ("final", None)),
        ({"final": {"model": "thyroid_nodule", **listed("thyroid gland")}}, NODULE, None),
        ({"final": {}}, NODULE, None),  # nobody said of what
        ({"original": {"model": "thyroid_nodule"}}, NODULE, None),  # a prediction
        ({"final": listed("thyroid nodule"), "thyroid_nodule": {}}, NODULE, ("thyroid_nodule", None)),
        ({}, NODULE, None),
    ],
)
def test_to_whom_a_label_belongs(tmp_path: Path, labels: dict, task: Any, expected: tuple | None) -> None:
    store = Store(tmp_path, {"picture": labels})
    found = submitted(store, task)
    assert unlabelled(store, task) == (["picture"] if expected is None else [])
    if expected is None:
        assert found == []
    else:
        (label,) = found
        assert (label.image_id, label.label.parent.name, label.value) == ("picture", *expected)


def test_unlabelled_pictures_are_those_of_the_task(tmp_path: Path) -> None:
    store = Store(tmp_path, {"b": {}, "a": {"thyroid_gland": {}}, "c": {"thyroid_nodule": {}}})
    assert unlabelled(store, NODULE) == ["a", "b"]
    assert unlabelled(store, GLAND) == ["b", "c"]


def test_labels_become_binary_masks(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
    Image.fromarray(values * 50).save(tmp_path / "image.png")
    Image.fromarray(values).save(tmp_path / "map.png")
    Image.fromarray(np.ones((2, 2), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(values).save(tmp_path / "lossy.jpg")
    image = tmp_path / "image.png"
    labels = [
        Submitted("one", image, tmp_path / "map.png", 2),
        Submitted("whole", image, tmp_path / "map.png", None),
        Submitted("small", image, tmp_path / "small.png", None),
        Submitted("lossy", image, tmp_path / "lossy.jpg", None),
        Submitted("lost", image, tmp_path / "lost.png", None),
    ]
    items, refused = as_items(labels, NODULE, tmp_path / "masks")
    assert [item["case_id"] for item in items] == ["one", "whole"]
    assert {item["task"] for item in items} == {"thyroid nodule"}
    masks = [np.asarray(Image.open(item["label"])) for item in items]
    assert masks[0].tolist() == [[0, 0, 255], [255, 255, 0]]
    assert masks[1].tolist() == [[0, 255, 255], [255, 255, 0]]
    assert [error.fact.split(",")[0] for error in refused[:2]] == ["is 2 × 2", "is a JPEG"]
    assert refused[2].where.endswith("lost.png")


def test_others_are_measured_on_the_best_that_is_there(phantoms: Path, tmp_path: Path) -> None:
    study = [Path(item["image"]) for item in phantom_items(phantoms, "TN", 3)]
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    labels = {"thyroid gland": phantom_items(phantoms, "TG", 2)}
    tasks = [GLAND, find("FH")]
    found = pictures_of_others(tasks, [*study, broken], labels)
    assert found.reference == {"thyroid gland": "submitted labels", "fetal head": "masks of the network before"}
    assert found.measured["thyroid gland"] == labels["thyroid gland"]
    assert [item["image"] for item in found.measured["fetal head"]] == [str(path) for path in study]
    assert not any("label" in item for item in found.measured["fetal head"])
    assert [(item["image"], item["task"]) for item in found.rehearsed] == [
        (str(path), task.name) for task in tasks for path in study
    ]


def test_a_reference_folder_goes_before_the_study(phantoms: Path) -> None:
    from propl_monai.datasets.sources.registry import read_source

    cases = [case for case in read_source("folder", phantoms).cases if case.task == "fetal head"]
    by_split = {split: {case.image for case in cases if case.split == split} for split in ("train", "validation")}
    found = pictures_of_others([find("FH")], [], {}, read_source("folder", phantoms))
    assert found.reference["fetal head"] == "validation masks of the reference folder"
    measured = {Path(item["image"]).relative_to(phantoms).as_posix() for item in found.measured["fetal head"]}
    rehearsed = {Path(item["image"]).relative_to(phantoms).as_posix() for item in found.rehearsed}
    assert measured == by_split["validation"] and len(measured) <= MOST_MEASURED
    assert rehearsed == by_split["train"]
    assert all(Path(item["label"]).is_file() for item in found.measured["fetal head"])
