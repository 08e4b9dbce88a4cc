"""Who may be trained on: no test case, no label where none is counted, and every fault of the data told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import TrainingCohort, evaluation_items, external_cases, open_datalist
from propl_monai.datasets.sources.registry import read_source
from propl_monai.datasets.verification.record import write_record
from propl_monai.datasets.verification.verify import verify_datalist
from propl_monai.errors import ProPLError
from propl_monai.tasks import NAMES


def cohort(data: Path, run: Path, datalist: Path | None = None, **options: object) -> TrainingCohort:
    tasks = options.pop("tasks", NAMES)
    return TrainingCohort(str(data), None if datalist is None else str(datalist), str(run), tasks, **options)  # type: ignore[arg-type]


@pytest.fixture
def own(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of two tasks of the phantoms, to break."""
    folder = tmp_path / "data"
    for code in ("LA", "LV"):
        shutil.copytree(phantoms / code, folder / code)
    return folder


def ids(items: list[dict]) -> set[str]:
    return {item["case_id"] for item in items}


def test_no_case_is_in_two_places_and_no_test_case_in_any(phantoms: Path, tmp_path: Path) -> None:
    made = cohort(phantoms, tmp_path, labelled_fraction="1/16")
    datalist = Datalist.read(tmp_path / "datalist.json", phantoms)
    splits = {
        name: {case.case_id for case in datalist.cases if case.split == name}
        for name in ("train", "validation", "test")
    }
    assert all(splits.values())
    assert ids(made.labelled) | ids(made.unlabelled) == splits["train"]
    assert ids(made.labelled) & ids(made.unlabelled) == set()
    assert ids(made.validation) == splits["validation"]
    seen = ids(made.labelled + made.unlabelled + made.validation)
    assert seen & splits["test"] == set()
    # Neither may a patient, nor a picture, of the test split come in under another task.
    groups = {case.group for case in datalist.cases if case.split == "test"}
    hashes = {case.image_sha256 for case in datalist.cases if case.split == "test"}
    known = {case.case_id: case for case in datalist.cases}
    assert not any(known[case].group in groups or known[case].image_sha256 in hashes for case in seen)
    assert made.counts == {
        "labelled": len(made.labelled),
        "unlabelled": len(made.unlabelled),
        "validation": len(made.validation),
    }
    assert made.sha256 == datalist.sha256 and made.inputs == [
        str(tmp_path / name) for name in ("datalist.json", "datalist.verified.json")
    ]


def test_items_hold_a_label_exactly_where_it_counts(phantoms: Path, tmp_path: Path) -> None:
    made = cohort(phantoms, tmp_path, labelled_fraction="1/16")
    assert made.labelled and made.unlabelled and made.validation
    assert all(Path(item["label"]).is_file() for item in made.labelled + made.validation)
    assert all("label" not in item and "mask" not in json.dumps(item) for item in made.unlabelled)
    assert all(Path(item["image"]).is_file() and item["task"] in NAMES for item in made.unlabelled)


def test_fractions_are_nested_and_all_is_all(phantoms: Path, tmp_path: Path) -> None:
    made = [cohort(phantoms, tmp_path, labelled_fraction=part) for part in ("1/16", "1/2", 1)]
    assert ids(made[0].labelled) <= ids(made[1].labelled) <= ids(made[2].labelled)
    assert len(made[0].labelled) < len(made[2].labelled) and made[2].unlabelled == []
    assert all(ids(one.labelled) | ids(one.unlabelled) == ids(made[2].labelled) for one in made)


def test_labelled_alone(phantoms: Path, tmp_path: Path) -> None:
    made = cohort(phantoms, tmp_path, labelled_fraction="1/16", use_unlabelled=False)
    assert made.unlabelled == [] and made.counts["unlabelled"] == 0
    assert ids(made.labelled) == ids(cohort(phantoms, tmp_path, labelled_fraction="1/16").labelled)


def test_tasks_are_cut_and_absent_ones_left_out(own: Path, tmp_path: Path) -> None:
    made = cohort(own, tmp_path, tasks=["LV", "thyroid nodule"])
    assert {item["task"] for item in made.labelled + made.unlabelled + made.validation} == {"left ventricle"}


def test_a_datalist_file_is_taken_as_it_is(own: Path, tmp_path: Path) -> None:
    first = cohort(own, tmp_path)
    moved = tmp_path / "mine.json"
    shutil.move(tmp_path / "datalist.json", moved)
    shutil.move(tmp_path / "datalist.verified.json", tmp_path / "mine.verified.json")
    second = cohort(own, tmp_path / "other", moved)
    assert second.labelled == first.labelled
    assert second.inputs == [str(moved), str(tmp_path / "mine.verified.json")]
    assert not (tmp_path / "other").exists()


def test_truly_unlabelled_images_join_the_unlabelled(own: Path, tmp_path: Path) -> None:
    before = cohort(own, tmp_path, labelled_fraction=1)
    gone = before.labelled[0]
    Path(gone["label"]).unlink()
    made = cohort(own, tmp_path, labelled_fraction=1)
    assert ids(made.unlabelled) == {gone["case_id"]} and gone["case_id"] not in ids(made.labelled)


def first_mask(own: Path) -> Path:
    return sorted((own / "LA" / "PHANTOM" / "masks").iterdir())[0]


def test_an_unverified_datalist_is_refused_unless_allowed(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    read_source("folder", own).write(file)
    with pytest.raises(
        ProPLError, match=r"mine\.json: was never verified; run `propl verify .*mine\.json --root .*data`"
    ):
        cohort(own, tmp_path / "run", file)
    made = cohort(own, tmp_path / "run", file, allow_unverified="true")
    assert made.inputs == [str(file)]
    with pytest.raises(ProPLError, match="'yes' is neither true nor false"):
        cohort(own, tmp_path / "run", file, allow_unverified="yes")
    write_record(file, verify_datalist(file, own))
    assert cohort(own, tmp_path / "run", file).labelled == made.labelled


def test_a_missing_file_is_named(own: Path, tmp_path: Path) -> None:
    cohort(own, tmp_path)
    first_mask(own).unlink()
    with pytest.raises(ProPLError, match="cannot be found any more") as caught:
        cohort(own, tmp_path, tmp_path / "datalist.json")
    assert str(first_mask(own).parent / "patient0000_a.png") in str(caught.value)


def test_a_changed_file_is_named(own: Path, tmp_path: Path) -> None:
    cohort(own, tmp_path)
    mask = first_mask(own)
    mask.write_bytes(mask.read_bytes() + b" ")
    with pytest.raises(ProPLError, match=r"patient0000_a\.png: was changed since it was verified; run `propl verify"):
        cohort(own, tmp_path, tmp_path / "datalist.json")


def test_what_was_built_and_verified_is_not_decoded_again(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cohort(own, tmp_path)
    monkeypatch.setattr("propl_monai.datasets.verification.verify.check_file", None)
    assert cohort(own, tmp_path).labelled == made.labelled
    with pytest.raises(TypeError, match="NoneType"):
        cohort(own, tmp_path / "another run")


def test_only_the_writer_verifies(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("propl_monai.datasets.cohort.is_writer", lambda: False)
    assert cohort(own, tmp_path).labelled and list(tmp_path.glob("*.json")) == []


def test_masks_of_another_size_are_all_named(own: Path, tmp_path: Path) -> None:
    masks = sorted((own / "LA" / "PHANTOM" / "masks").iterdir())[:2]
    for mask in masks:
        Image.fromarray(np.zeros((60, 64), np.uint8)).save(mask)
    with pytest.raises(ProPLError) as caught:
        cohort(own, tmp_path)
    told = str(caught.value)
    assert all(mask.relative_to(own).as_posix() in told for mask in masks)
    assert "is 60 × 64 (height × width), its image LA/PHANTOM/images/patient0000_a.png is 64 × 64" in told
    assert "export the mask again in the image's size, or drop the case" in told


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"nowhere: is not a folder; give --dataset_dir, or set PROPL_DATA"):
        cohort(tmp_path / "nowhere", tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProPLError, match="empty: holds no folder of a task; use the layout <TASK>/<SOURCE>"):
        cohort(tmp_path / "empty", tmp_path)


def test_no_datalist_file(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"none\.json: does not exist"):
        cohort(own, tmp_path, tmp_path / "none.json")


def test_unknown_and_absent_tasks(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="unknown task 'left atrum'; did you mean 'left atrium'"):
        cohort(own, tmp_path, tasks=["left atrum"])
    with pytest.raises(ProPLError, match="holds no case of split any and task thyroid nodule; choose another"):
        cohort(own, tmp_path, tasks=["thyroid nodule"])


def test_bad_fraction(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="labelled fraction: 2 is not above 0 and at most 1"):
        cohort(own, tmp_path, labelled_fraction=2)


def test_no_label_at_all(own: Path, tmp_path: Path) -> None:
    for masks in own.rglob("masks"):
        shutil.rmtree(masks)
    with pytest.raises(ProPLError, match="data: holds no train case with a mask; add labelled images"):
        cohort(own, tmp_path)


def test_evaluation_takes_one_split(own: Path, tmp_path: Path) -> None:
    datalist = open_datalist(str(own), None, str(tmp_path), ["LA"])
    items = evaluation_items(datalist)
    assert ids(items) == {case.case_id for case in datalist.cases if case.split == "test"}
    assert all(item["label"] and item["group"] and item["pixel_spacing_mm"][0] > 0 for item in items)
    assert ids(evaluation_items(datalist, "validation")) & ids(items) == set()
    with pytest.raises(ProPLError, match="unknown split 'tests'; did you mean 'test'"):
        evaluation_items(datalist, "tests")


def test_evaluation_without_a_mask(own: Path, tmp_path: Path) -> None:
    datalist = open_datalist(str(own), None, str(tmp_path), ["LA"])
    without = tuple(replace(case, mask=None, mask_sha256=None) for case in datalist.cases)
    with pytest.raises(ProPLError, match="data: no test case has a mask; choose another split, or add masks"):
        evaluation_items(replace(datalist, cases=without, place=None))


def test_what_is_left_out_is_neither_trained_nor_validated_on_and_is_all_of_the_external_set(
    phantoms: Path, tmp_path: Path
) -> None:
    whole = TrainingCohort(str(phantoms), None, str(tmp_path), NAMES, "1/2")
    datalist = open_datalist(str(phantoms), str(tmp_path / "datalist.json"), str(tmp_path), NAMES)
    source, group = datalist.cases[0].source, datalist.cases[0].group
    pattern = f"{source}/{group[:-1]}?"
    external = {case.case_id for case in external_cases(datalist, pattern)}
    assert external and len(external) < len(datalist.cases)
    part = TrainingCohort(str(phantoms), None, str(tmp_path), NAMES, "1/2", leave_out=pattern)

    def ids(cohort: TrainingCohort) -> set[str]:
        return {item["case_id"] for item in (*cohort.labelled, *cohort.unlabelled, *cohort.validation)}

    assert ids(part) == ids(whole) - external and ids(part) != ids(whole)
    tested = {item["case_id"] for item in evaluation_items(datalist, external=pattern)}
    assert tested == {case.case_id for case in datalist.cases if case.case_id in external and case.mask}


def test_external_data_that_do_not_exist_are_named(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"external data 'CAMUSS': fits no case; .*sources: PHANTOM"):
        TrainingCohort(str(phantoms), None, str(tmp_path), NAMES, "1/2", leave_out=["CAMUSS"])
