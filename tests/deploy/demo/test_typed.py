"""What people type: names, codes, sentences, slips; pixel sizes."""

from __future__ import annotations

import pytest

from propl_monai.deploy.demo.typed import spacing_of, task_of
from propl_monai.errors import ProPLError
from propl_monai.tasks import NAMES, TASKS


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.code)
def test_names_codes_slugs_and_sentences(task: object) -> None:
    sentences = (task.name, task.code, task.slug, task.prompt, f"  where is the {task.name.upper()}, please? ")
    assert [task_of(text, NAMES) for text in sentences] == [task] * 5


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("thyroid noodle", "thyroid nodule"),
        ("Segment the thyroid noodle in the ultrasound image.", "thyroid nodule"),
        ("please outline the myokardium", "myocardium"),
        ("left ventrikel", "left ventricle"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_and_all(text: str, near: str) -> None:
    with pytest.raises(ProPLError, match=f"did you mean '{near}'") as caught:
        task_of(text, NAMES)
    assert caught.value.cure.endswith("known: " + ", ".join(NAMES))


@pytest.mark.parametrize("text", ["", "  ", "...", "kidney", "draw the kidney and its stones", "<b>\0", "x" * 5000])
def test_what_is_no_target_is_answered_with_all(text: str) -> None:
    with pytest.raises(ProPLError) as caught:
        task_of(text, NAMES)
    assert ", ".join(NAMES) in caught.value.cure


def test_two_targets_and_unknown_weights() -> None:
    with pytest.raises(ProPLError, match="'left atrium' and 'left ventricle' are named"):
        task_of("left atrium and left ventricle", NAMES)
    with pytest.raises(ProPLError, match=r"do not know 'fetal head'; they know left atrium"):
        task_of("FH", ("left atrium",))


@pytest.mark.parametrize(
    ("text", "spacing"),
    [
        ("", None),
        (" ", None),
        ("0.1", (0.1, 0.1)),
        ("0,1 mm", (0.1, 0.1)),
        ("0.1 0.12", (0.1, 0.12)),
        ("0.1 × 0.12", (0.1, 0.12)),
        ("0.1x.12", (0.1, 0.12)),
    ],
)
def test_pixel_sizes(text: str, spacing: tuple[float, float] | None) -> None:
    assert spacing_of(text) == spacing


@pytest.mark.parametrize("text", ["a", "0", "-1", "nan", "inf", "1 2 3", "0.1 ×", "1e999"])
def test_what_is_no_pixel_size(text: str) -> None:
    with pytest.raises(ProPLError, match="pixel size"):
        spacing_of(text)
