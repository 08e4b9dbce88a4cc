"""The registry of tasks."""

from __future__ import annotations

import pytest

from propl_monai import tasks
from propl_monai.errors import ProPLError


def test_eight_tasks_with_distinct_names_codes_and_colours() -> None:
    assert len(tasks.TASKS) == 8
    for values in (tasks.NAMES, [t.code for t in tasks.TASKS], [t.colour for t in tasks.TASKS]):
        assert len(set(values)) == 8
    assert all(0 <= level <= 255 for task in tasks.TASKS for level in task.colour)


def test_prompt_is_the_papers_sentence() -> None:
    assert tasks.find("TN").prompt == "Segment the thyroid nodule in the ultrasound image."


@pytest.mark.parametrize("text", ["left atrium", "LEFT ATRIUM", " left atrium ", "LA", "la", "left_atrium"])
def test_find_takes_name_code_and_slug_in_any_case(text: str) -> None:
    assert tasks.find(text).name == "left atrium"


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.code)
def test_every_task_is_found_by_its_own_spellings(task: tasks.Task) -> None:
    assert tasks.find(task.name) is tasks.find(task.code) is tasks.find(task.slug) is task


def test_tasks_of_one_organ_share_images_and_no_task_does_with_itself() -> None:
    shared = {
        (one.code, other.code)
        for one in tasks.TASKS
        for other in tasks.TASKS
        if tasks.share_images(one.name, other.name)
    }
    assert {pair for pair in shared if pair[0] < pair[1]} == {("LA", "LV"), ("LA", "MD"), ("LV", "MD"), ("TG", "TN")}
    assert shared == {pair[::-1] for pair in shared}


def test_unknown_task_names_place_and_nearest() -> None:
    with pytest.raises(ProPLError, match=r"train\.json: unknown task 'thyroid nodul'; did you mean 'thyroid nodule'"):
        tasks.find("thyroid nodul", where="train.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("LV", "left ventricle"),
        (" Left_Ventricle ", "left ventricle"),
        ("Segment the thyroid nodule in the ultrasound image", "thyroid nodule"),
        ("Where is the  breast tumour?", "breast cancer"),
        ("heart muscle", "myocardium"),
        ("Thyroid", "thyroid gland"),
        ("Find the cavity of the left ventricle.", "left ventricle"),
    ],
)
def test_a_user_may_ask_in_other_words(text: str, name: str) -> None:
    assert tasks.understand(text).name == name


@pytest.mark.parametrize(
    ("text", "near", "distance"),
    [
        ("thyroid nodul", "thyroid nodule", "0.04"),
        ("find the thyroid lump", r"thyroid nodule' \(as 'thyroid mass'\)", "0.25"),
        ("not the left ventricle", r"left ventricle' \(as 'cavity of the left ventricle'\)", "0.20"),
    ],
)
def test_words_that_are_not_known_are_not_guessed_at(text: str, near: str, distance: str) -> None:
    with pytest.raises(
        ProPLError, match=f"unknown task '{text}'; did you mean '{near}.*distance {distance} by letters"
    ):
        tasks.understand(text, "--task")


def test_no_two_tasks_share_a_word_or_a_sentence() -> None:
    words = [word for task in tasks.TASKS for word in (task.name, task.code.lower(), *task.synonyms)]
    sentences = [sentence for task in tasks.TASKS for sentence in task.sentences]
    assert len(set(words)) == len(words) and len(set(sentences)) == len(sentences) == 8 * 24
    assert [task.sentences[0] for task in tasks.TASKS] == [task.prompt for task in tasks.TASKS]
    assert all(tasks.understand(sentence) is task for task in tasks.TASKS for sentence in task.sentences)
