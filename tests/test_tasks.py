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


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds is not known to the next one."""
    monkeypatch.setattr(tasks, "_added", {})


@pytest.mark.usefixtures("alone")
def test_an_added_task_is_found_like_any_other() -> None:
    made = tasks.add(tasks.new_task("  Carotid  Lumen "))
    assert (made.name, made.code, made.organ, made.slug) == ("carotid lumen", "CL", "carotid lumen", "carotid_lumen")
    assert made.prompt == "Segment the carotid lumen in the ultrasound image."
    for words in ("carotid lumen", "CL", "carotid_lumen", "Where is the carotid lumen?"):
        assert tasks.understand(words) is made
    assert tasks.known() == (*tasks.TASKS, made) and tasks.known_names()[-1] == "carotid lumen"
    assert tasks.is_added("carotid lumen") and not tasks.is_added("left atrium")
    assert not any(tasks.share_images("carotid lumen", name) for name in tasks.NAMES)
    assert tasks.from_facts(tasks.facts(made), "x") == made
    with pytest.raises(ProPLError, match="did you mean 'carotid lumen'"):
        tasks.find("carotid lumn")


@pytest.mark.usefixtures("alone")
def test_added_tasks_differ_in_code_and_colour() -> None:
    names = (
        "carotid lumen",
        "cyst of liver",
        "cold lesion",
        "lung",
        "left valve",
        "tendon gap",
        "bladder",
        "bile duct",
    )
    for name in names:
        tasks.add(tasks.new_task(name))
    made = tasks.known()[8:]
    assert [task.name for task in made] == list(names)
    codes = [task.code for task in tasks.known()]
    assert len(set(codes)) == len(codes) and "CL" in codes
    assert len({task.colour for task in tasks.known()[:13]}) == 13  # then they repeat
    assert all(tasks.find(task.code) is task for task in tasks.known())
    assert tasks.share_images(tasks.add(tasks.new_task("septum", "heart")).name, "left atrium")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("  ", "the name is empty; name the target in 2 to 40 letters"),
        ("a/b", "'a/b' is no name of a target"),
        ("1", "'1' is no name of a target"),
        ("Säule", "'Säule' is no name of a target"),
        ("x" * 41, "is no name of a target"),
        ("Left Atrium", "'left atrium' is known already; train that task, or choose another name"),
        ("thyroid", "'thyroid', by which 'thyroid gland' is asked for, is known already"),
        ("tn", "'tn', by which 'thyroid nodule' is asked for, is known already"),
        ("breast tumour", "'breast tumor', by which 'breast cancer' is asked for, is known already"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, message: str) -> None:
    with pytest.raises(ProPLError, match=f"the new target: .*{message}"):
        tasks.new_task(name, where="the new target")
    with pytest.raises(ProPLError, match=r"organ: 'a.*' is not a line of text"):
        tasks.new_task("carotid lumen", "a\nb")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "change",
    [
        {"name": "../etc"},
        {"name": 3},
        {"code": "c"},
        {"organ": ""},
        {"colour": [1, 2]},
        {"colour": [1, 2, 256]},
        {"colour": 7},
        {"synonyms": ["A"]},
        {"more": 1},
    ],
)
def test_facts_of_a_file_are_checked(change: dict) -> None:
    content = tasks.facts(tasks.new_task("carotid lumen")) | change
    with pytest.raises(
        ProPLError, match=r"weights: describes a task that is none: .*carotid|weights: describes a task"
    ):
        tasks.from_facts(content, "weights")
    with pytest.raises(ProPLError, match="describes a task that is none: 5"):
        tasks.from_facts(5, "weights")


@pytest.mark.usefixtures("alone")
def test_a_task_of_the_package_stays_what_it_is() -> None:
    assert tasks.add(tasks.Task("left atrium", "XX", "x", (0, 0, 0))) is tasks.find("LA")
    assert tasks.known() == tasks.TASKS
