"""Switches as the command line gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from propl_monai.common.options import pairs, switch, words
from propl_monai.errors import ProPLError


@pytest.mark.parametrize(
    ("value", "meant"), [(True, True), ("true", True), ("True", True), (False, False), ("false", False)]
)
def test_words_count_as_what_they_say(value: object, meant: bool) -> None:
    assert switch("resume", value) is meant


@pytest.mark.parametrize("value", ["yes", "", 1, None])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ProPLError, match=r"--resume: .* give true or false"):
        switch("resume", value)


def test_false_in_words_leaves_the_unlabelled_images_out(phantoms: Path, tmp_path: Path) -> None:
    from propl_monai.datasets.cohort import TrainingCohort
    from propl_monai.tasks import NAMES

    cohort = TrainingCohort(str(phantoms), None, str(tmp_path), NAMES, "1/2", use_unlabelled="false")
    assert cohort.labelled and not cohort.unlabelled


def test_labelled_images_and_hash_do_not_depend_on_the_tasks_trained(phantoms: Path, tmp_path: Path) -> None:
    from propl_monai.datasets.cohort import TrainingCohort
    from propl_monai.tasks import NAMES

    every = TrainingCohort(str(phantoms), None, str(tmp_path), NAMES, "1/4")
    one = TrainingCohort(str(phantoms), None, str(tmp_path), "LV", "1/4")
    assert one.sha256 == every.sha256
    expected = {item["case_id"] for item in every.labelled if item["task"] == "left ventricle"}
    assert {item["case_id"] for item in one.labelled} == expected


def test_pairs_and_words() -> None:
    assert pairs("--set", ["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    assert words(" propl, supervised ,,") == ["propl", "supervised"]
    for texts, fact in (
        (["a"], "'a' is not name=value"),
        (["=1"], "is not name=value"),
        (["a=1", "a=2"], "given twice"),
    ):
        with pytest.raises(ProPLError, match=f"--set: .*{fact}"):
            pairs("--set", texts)
