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


def test_unknown_task_names_place_and_nearest() -> None:
    with pytest.raises(ProPLError, match=r"train\.json: unknown task 'thyroid nodul'; did you mean 'thyroid nodule'"):
        tasks.find("thyroid nodul", where="train.json")
