"""CAMUS in both forms: names, axes, spacing, three tasks of one label map, official split, sequences, quality."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from originals import camus as fake

from propl_monai.datasets.sources import camus, camus_split
from propl_monai.datasets.sources.base import Reading
from propl_monai.datasets.sources.camus import SOURCE
from propl_monai.errors import ProPLError

STILLS = ["2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES"]
VALUES = {"left ventricle": 1, "myocardium": 2, "left atrium": 3}


def names(reading: Reading) -> list[str]:
    return [record.name for record in reading.records]


@pytest.mark.parametrize("form", ["2023", "challenge"])
def test_pictures_and_masks_stand_upright_with_their_spacing(tmp_path: Path, form: str) -> None:
    reading = SOURCE.open(fake.make(tmp_path, form))
    by_name = {record.name: record for record in reading.records}
    for name, frame in (("patient0001_2CH_ED", 1), ("patient0200_4CH_ES", fake.FRAMES)):
        record = by_name[name]
        shown = record.image()
        np.testing.assert_array_equal(shown.pixels, fake.picture(name[:-3], frame))
        assert shown.spacing_mm == pytest.approx((0.154, 0.308), rel=1e-6)
        assert set(record.masks) == set(SOURCE.tasks) == set(VALUES)
        for task, read in record.masks.items():
            assert read is not None
            mask = read()
            assert mask.dtype == np.bool_
            np.testing.assert_array_equal(mask, fake.label_map(frame) == VALUES[task])
            assert mask.any()


def test_both_forms_give_the_same_names_groups_and_splits(tmp_path: Path) -> None:
    listed = {}
    for form in ("2023", "challenge"):
        records = SOURCE.open(fake.make(tmp_path / form, form, split_files=False)).records
        listed[form] = [(each.name, each.group, each.split) for each in records if "testing" not in each.name]
    assert listed["2023"] == listed["challenge"]
    assert [name for name, _, _ in listed["2023"]][:4] == [f"patient0001_{still}" for still in STILLS]
    splits = {group: split for _, group, split in listed["2023"]}
    assert splits == {"patient0001": "train", "patient0027": "test", "patient0200": "validation"}


def test_testing_patients_of_the_challenge_are_unlabelled_and_named_apart(tmp_path: Path) -> None:
    reading = SOURCE.open(fake.make(tmp_path, "challenge", patients=("patient0001",)))
    assert names(reading) == [f"{who}_{still}" for who in ("patient0001", "testing_patient0001") for still in STILLS]
    testing = reading.records[-1]
    assert (testing.group, testing.split) == ("testing_patient0001", "test")
    assert testing.masks == dict.fromkeys(SOURCE.tasks)
    np.testing.assert_array_equal(testing.image().pixels, fake.picture("testing_patient0001_4CH", fake.FRAMES))
    assert reading.found == {"patients": 2, "pictures": 8, "label maps": 4}
    assert reading.excluded == ()


@pytest.mark.parametrize("inner", [".", "CAMUS_public", "CAMUS_public/database_nifti"])
def test_the_folder_may_be_that_of_the_download_or_near_it(
    tmp_path: Path, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.make(tmp_path)
    assert len(SOURCE.open(tmp_path / inner).records) == 12
    monkeypatch.chdir(tmp_path / inner)
    here = SOURCE.open(Path("."))
    assert {record.group: record.split for record in here.records}["patient0027"] == "test"


def test_split_files_of_the_download_count_before_the_list_kept_here(tmp_path: Path) -> None:
    root = fake.make(tmp_path, patients=("patient0001", "patient0002"))
    (root / "database_split" / "subgroup_testing.txt").write_text("patient0002\n")
    splits = {record.group: record.split for record in SOURCE.open(root).records}
    assert splits == {"patient0001": "train", "patient0002": "test"}


def test_the_list_kept_here_is_that_of_2023() -> None:
    splits = camus_split.official_splits(Path("nowhere"))
    assert Counter(splits.values()) == {"train": 400, "validation": 50, "test": 50}
    assert min(splits) == "patient0001" and max(splits) == "patient0500"
    ends = ["patient0027", "patient0276", "patient0200", "patient0341", "patient0026", "patient0500"]
    assert [splits[name] for name in ends] == ["test", "test", "validation", "validation", "train", "train"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("validation", None, "is missing"),
        ("validation", "patient0001\n", "names patient0001, which is in train too"),
        ("testing", "patient27\n", "holds 'patient27', not a patient"),
    ],
)
def test_split_files_that_contradict_are_refused(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    root = fake.make(tmp_path)
    path = root / "database_split" / f"subgroup_{name}.txt"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ProPLError, match=says) as caught:
        SOURCE.open(root)
    assert path.name in caught.value.where


@pytest.mark.parametrize("form", ["2023", "challenge"])
def test_frames_between_the_two_stills_are_unlabelled(tmp_path: Path, form: str) -> None:
    folder = fake.make(tmp_path, form, patients=("patient0027",))
    reading = SOURCE.open(folder, {"sequences": "unlabelled"})
    own = {record.name: record for record in reading.records if record.group == "patient0027"}
    frames = [f"patient0027_{view}_frame00{number}" for view in ("2CH", "4CH") for number in (2, 3, 4)]
    assert sorted(own) == sorted([*(f"patient0027_{still}" for still in STILLS), *frames])
    for number in (4, 2, 3):  # in any order
        frame = own[f"patient0027_4CH_frame00{number}"]
        assert (frame.split, frame.masks) == ("test", dict.fromkeys(SOURCE.tasks))
        np.testing.assert_array_equal(frame.image().pixels, fake.picture("patient0027_4CH", number))
        assert frame.image().spacing_mm == pytest.approx((0.154, 0.308), rel=1e-6)


def test_half_sequences_may_keep_their_label_maps(tmp_path: Path) -> None:
    folder = fake.make(tmp_path, patients=("patient0001",))
    reading = SOURCE.open(folder, {"sequences": "labelled", "every": "2"})
    frames = [record for record in reading.records if "frame" in record.name]
    assert [frame.name[-12:] for frame in frames] == ["2CH_frame002", "2CH_frame004", "4CH_frame002", "4CH_frame004"]
    for frame, number in zip(frames, (2, 4, 2, 4), strict=True):
        for task, read in frame.masks.items():
            assert read is not None
            np.testing.assert_array_equal(read(), fake.label_map(number) == VALUES[task])


@pytest.mark.parametrize(("kind", "largest", "read_right"), [("<i2", 3, True), ("<f4", 3, True), ("<f4", 1, False)])
def test_label_maps_of_sequences_are_read_as_stored_or_refused(
    tmp_path: Path, kind: str, largest: int, read_right: bool
) -> None:
    """Floats up to 1 are taken for brightness and stretched by the reader of cines: that must not become a mask."""
    root = fake.make(tmp_path, patients=("patient0001",))
    labels = np.minimum(fake.label_map(2), largest).astype(kind)
    path = root / "database_nifti" / "patient0001" / "patient0001_2CH_half_sequence_gt.nii.gz"
    fake.write(path, np.stack([labels] * fake.FRAMES))
    frame = next(each for each in SOURCE.open(root, {"sequences": "labelled"}).records if "frame" in each.name)
    read = frame.masks["left ventricle"]
    assert read is not None
    if read_right:
        np.testing.assert_array_equal(read(), labels == 1)
    else:
        with pytest.raises(ProPLError, match="holds the values 0, 255, where a label map"):
            read()


def test_a_sequence_that_does_not_fit_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = fake.make(tmp_path, patients=("patient0001",))
    folder = root / "database_nifti" / "patient0001"
    (folder / "Info_2CH.cfg").write_text("ED: 1\nES: 18\nNbFrame: 18\nImageQuality: Good\n")
    fake.write(folder / "patient0001_4CH_half_sequence_gt.nii.gz", np.stack([fake.label_map()] * 3))
    reading = SOURCE.open(root, {"sequences": "labelled"})
    assert names(reading) == [f"patient0001_{still}" for still in STILLS]
    assert [(each.name, each.reason) for each in reading.excluded] == [
        (
            "patient0001_2CH_half_sequence",
            "Info_*.cfg does not say which of its frames are end-diastole and end-systole",
        ),
        ("patient0001_4CH_half_sequence", "its label maps are not as many as its frames"),
    ]
    (folder / "patient0001_2CH_half_sequence.nii.gz").unlink()
    (folder / "patient0001_4CH_half_sequence.nii.gz").write_bytes(b"")
    reading = SOURCE.open(root, {"sequences": "unlabelled"})
    assert [each.reason for each in reading.excluded] == ["its sequence is missing", "is empty (0 bytes)"]


def test_poor_and_unknown_quality_can_be_dropped(tmp_path: Path) -> None:
    root = fake.make(tmp_path, patients=("patient0001", "patient0002"), quality="Medium")
    first, second = (root / "database_nifti" / name for name in ("patient0001", "patient0002"))
    (first / "Info_4CH.cfg").write_text("ED: 1\nES: 5\nNbFrame: 5\nImageQuality: Poor\n")
    (second / "Info_2CH.cfg").unlink()
    assert len(SOURCE.open(root).records) == 8
    reading = SOURCE.open(root, {"poor_quality": "drop"})
    assert names(reading) == [f"patient000{end}" for end in ("1_2CH_ED", "1_2CH_ES", "2_4CH_ED", "2_4CH_ES")]
    assert [(each.name, each.reason) for each in reading.excluded] == [
        ("patient0001_4CH_ED", "image quality is poor"),
        ("patient0001_4CH_ES", "image quality is poor"),
        ("patient0002_2CH_ED", "image quality is not given"),
        ("patient0002_2CH_ES", "image quality is not given"),
    ]
    assert reading.found == {"patients": 2, "pictures": 8, "label maps": 8}


def test_partners_that_are_missing_and_files_that_do_not_belong_are_told(tmp_path: Path) -> None:
    root = fake.make(tmp_path, patients=("patient0001",))
    home = root / "database_nifti"
    (home / "patient0001" / "patient0001_2CH_ED_gt.nii.gz").unlink()
    (home / "patient0001" / "patient0001_4CH_ES.nii.gz").unlink()
    (home / "patient0001" / "patient0002_4CH_ES.nii.gz").write_bytes(b"of another patient")
    (home / "patient0001" / ".DS_Store").write_bytes(b"")
    (home / "overview.xlsx").write_bytes(b"")
    fake.write(home / "patient0001" / "patient0001_2CH_ES.mhd", fake.picture())
    reading = SOURCE.open(root)
    assert names(reading) == ["patient0001_2CH_ES", "patient0001_4CH_ED"]
    assert {each.name: each.reason for each in reading.excluded} == {
        "database_nifti/overview.xlsx": "is not a patient's folder",
        "patient0001/patient0002_4CH_ES.nii.gz": "is no file of CAMUS's layout",
        "patient0001/patient0001_2CH_ES.nii.gz": "is there a second time in another format",
        "patient0001_2CH_ED": "its label map is missing",
        "patient0001_4CH_ES": "its picture is missing",
    }


@pytest.mark.parametrize(("value", "shown"), [(4, "0, 1, 2, 3, 4"), (255, "0, 1, 2, 3, 255")])
def test_other_labels_are_refused_when_the_mask_is_read(tmp_path: Path, value: int, shown: str) -> None:
    root = fake.make(tmp_path, patients=("patient0001",))
    labels = fake.label_map()
    labels[0, 0] = value
    path = root / "database_nifti" / "patient0001" / "patient0001_2CH_ED_gt.nii.gz"
    fake.write(path, labels)
    read = SOURCE.open(root).records[0].masks["myocardium"]
    assert read is not None
    with pytest.raises(ProPLError, match=f"holds the values {shown}, where a label map") as caught:
        read()
    assert caught.value.where.endswith(path.name)


def test_two_forms_in_one_folder_are_refused(tmp_path: Path) -> None:
    fake.make(tmp_path, "challenge", patients=("patient0001",))
    fake.make(tmp_path, "2023", patients=("patient0001",))
    with pytest.raises(ProPLError, match="holds patient0001 twice"):
        SOURCE.open(tmp_path)
    shutil.rmtree(tmp_path / "training")
    assert names(SOURCE.open(tmp_path))[-1] == "testing_patient0001_4CH_ES"


def test_a_folder_without_patients_is_refused(tmp_path: Path) -> None:
    (tmp_path / "heart").mkdir()
    with pytest.raises(ProPLError, match=r"holds no patient's folder such as patient0001 \(.*: heart\)"):
        SOURCE.open(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sequences": "all"}, "value 'all'"),
        ({"poor_quality": "x"}, "value 'x'"),
        ({"every": "0"}, "'0' is not a whole"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, str], says: str) -> None:
    with pytest.raises(ProPLError, match=says):
        SOURCE.open(fake.make(tmp_path), options)


def test_facts() -> None:
    assert SOURCE.name == "CAMUS"
    assert SOURCE.options == {"sequences": "none", "every": "1", "poor_quality": "keep"}
    assert camus.LABELS == VALUES
    assert SOURCE.holds == {"patients": 500, "pictures": 2000, "label maps": 2000}
