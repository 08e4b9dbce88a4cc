"""The datalist file: what is written is read back, and every rule is refused with the case and the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from factories import ROOT

from propl_monai.data import cases as rules
from propl_monai.data.datalist import FORMAT, Case, Datalist, as_items
from propl_monai.errors import ProPLError
from propl_monai.tasks import NAMES

SCHEMA = json.loads((ROOT / "datalists" / "schema.json").read_text(encoding="utf-8"))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_case(name: str = "a", **changes: Any) -> Case:
    case = Case(
        case_id=f"LA/CAMUS/{name}",
        image=f"LA/CAMUS/images/{name}.png",
        mask=f"LA/CAMUS/masks/{name}.png",
        task="left atrium",
        source="CAMUS",
        group=f"patient {name}",
        split="train",
        image_sha256=digest(name),
        mask_sha256=digest(name + " mask"),
        pixel_spacing_mm=(0.5, 0.25),
    )
    return replace(case, **changes)


def make_list(*made: Case) -> Datalist:
    return Datalist(Path("root"), made, "phantoms", "two circles")


def write_rows(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A file of two cases, the second one changed."""
    make_list(make_case("a"), make_case("b")).write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["cases"][1])
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def test_written_is_read_back(tmp_path: Path) -> None:
    made = make_list(make_case("b"), make_case("ä", mask=None, mask_sha256=None, pixel_spacing_mm=None))
    made.write(tmp_path / "new" / "list.json")
    read = Datalist.read(tmp_path / "new" / "list.json", root="root")
    assert set(read.cases) == set(made.cases)
    assert (read.root, read.name, read.description) == (made.root, made.name, made.description)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["list.json"]  # no temporary file is left
    assert Datalist.read(tmp_path / "new" / "list.json").root == tmp_path / "new"


def test_written_file_keeps_the_schema(tmp_path: Path) -> None:
    made = make_list(make_case("a"), make_case("b", mask=None, mask_sha256=None, pixel_spacing_mm=None))
    made.write(tmp_path / "list.json")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads((tmp_path / "list.json").read_text(encoding="utf-8")))


def test_schema_and_reader_hold_the_same_words() -> None:
    row = SCHEMA["$defs"]["case"]
    assert SCHEMA["properties"]["format"]["const"] == FORMAT
    assert tuple(row["properties"]) == rules.KEYS
    assert set(row["required"]) == set(rules.KEYS) - rules.OPTIONAL_KEYS
    assert tuple(row["properties"]["task"]["enum"]) == NAMES
    assert tuple(row["properties"]["split"]["enum"]) == rules.SPLITS
    patterns = [SCHEMA["$defs"][name]["pattern"] for name in ("path", "text", "sha256")]
    assert patterns == [rules.PATH_PATTERN, rules.TEXT_PATTERN, rules.SHA256_PATTERN]


BAD_ROWS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda row: row.update(imgae=row["image"]), "did you mean 'image'"),
    "missing key": (lambda row: row.pop("group"), "has no key 'group'"),
    "absolute path": (lambda row: row.update(image="/data/b.png"), "not a relative path"),
    "drive letter": (lambda row: row.update(image="C:/b.png"), "not a relative path"),
    "backslash": (lambda row: row.update(image="LA\\b.png"), "not a relative path"),
    "parent": (lambda row: row.update(mask="LA/../../b.png"), "not a relative path"),
    "dot": (lambda row: row.update(image="./b.png"), "not a relative path"),
    "parent at the end": (lambda row: row.update(image="LA/.."), "not a relative path"),
    "double slash": (lambda row: row.update(image="LA//b.png"), "not a relative path"),
    "id that leaves the folder": (lambda row: row.update(case_id="../b"), "not a relative path"),
    "number for a path": (lambda row: row.update(image=3), "not a relative path"),
    "image null": (lambda row: row.update(image=None), "not a relative path"),
    "unknown task": (lambda row: row.update(task="left atrum"), "did you mean 'left atrium'"),
    "code for a task": (lambda row: row.update(task="LA"), "unknown task 'LA'"),
    "list for a task": (lambda row: row.update(task=["left atrium"]), "unknown task"),
    "bad split": (lambda row: row.update(split="val"), "unknown split 'val'"),
    "empty group": (lambda row: row.update(group=""), "not a line of text"),
    "line break in source": (lambda row: row.update(source="a\nb"), "not a line of text"),
    "short hash": (lambda row: row.update(image_sha256="abc"), "not a SHA-256"),
    "upper-case hash": (lambda row: row.update(mask_sha256="A" * 64), "not a SHA-256"),
    "mask without hash": (lambda row: row.pop("mask_sha256"), "has a mask but no mask_sha256"),
    "hash without mask": (lambda row: row.update(mask=None), "has a mask_sha256 but no mask"),
    "zero spacing": (lambda row: row.update(pixel_spacing_mm=[0.1, 0]), "not two positive numbers"),
    "one spacing": (lambda row: row.update(pixel_spacing_mm=[0.1]), "not two positive numbers"),
    "text spacing": (lambda row: row.update(pixel_spacing_mm="0.1"), "not two positive numbers"),
    "spacing beyond all floats": (lambda row: row.update(pixel_spacing_mm=[0, 10**400]), "not two positive numbers"),
    "truth as spacing": (lambda row: row.update(pixel_spacing_mm=[True, 1]), "not two positive numbers"),
    "place of one": (lambda row: row.update(labelled_place=1), "not a number of at least 0 and below 1"),
    "place below zero": (lambda row: row.update(labelled_place=-0.01), "not a number of at least 0 and below 1"),
    "text for a place": (lambda row: row.update(labelled_place="0.5"), "not a number of at least 0 and below 1"),
    "truth for a place": (lambda row: row.update(labelled_place=False), "not a number of at least 0 and below 1"),
}


@pytest.mark.parametrize("change,fact", BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_bad_row_is_refused_by_reader_and_schema(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], fact: str
) -> None:
    path = write_rows(tmp_path / "list.json", change)
    with pytest.raises(ProPLError) as caught:
        Datalist.read(path)
    assert fact in str(caught.value)
    assert "case 2" in caught.value.where and str(path) in caught.value.where
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_text(encoding="utf-8")))


def test_message_names_the_line(tmp_path: Path) -> None:
    make_list(make_case("a"), make_case("b")).write(tmp_path / "list.json")
    text = (tmp_path / "list.json").read_text(encoding="utf-8")
    (tmp_path / "list.json").write_text(text.replace('"patient b"', '""'), encoding="utf-8")
    with pytest.raises(ProPLError, match="line 3, case 2 "):  # line 1 is the head, then one case a line
        Datalist.read(tmp_path / "list.json")


@pytest.mark.parametrize(
    "text,fact",
    [
        ("", "is empty"),
        ('{"format": 1,\n "name" 2}', "line 2: is not valid JSON"),
        ("[]", "not an object"),
        ('{"format": "propl-datalist/1", "name": "x", "cases": []}', "holds no case"),
        ('{"format": "propl-datalist/9", "name": "x", "cases": [{}]}', "has format 'propl-datalist/9'"),
        ('{"format": "propl-datalist/1", "name": "x", "case": []}', "did you mean 'cases'"),
        ('{"format": "propl-datalist/1", "name": "x", "cases": {}}', "'cases' is not a list"),
        ('{"format": "propl-datalist/1", "name": "x", "cases": [3]}', "case 1: is not an object"),
        ('{"format": "propl-datalist/1", "name": "x", "name": "y", "cases": []}', "the key 'name' twice"),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    (tmp_path / "list.json").write_text(text, encoding="utf-8")
    with pytest.raises(ProPLError) as caught:
        Datalist.read(tmp_path / "list.json")
    assert fact in str(caught.value)


def test_missing_and_undecodable_file(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="does not exist"):
        Datalist.read(tmp_path / "list.json")
    (tmp_path / "list.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ProPLError, match="not UTF-8"):
        Datalist.read(tmp_path / "list.json")


B = make_case("b")
CLASHES: dict[str, tuple[Case, str]] = {
    "id twice": (replace(B, case_id="LA/CAMUS/a"), "is there twice"),
    "id differs in case": (replace(B, case_id="la/camus/A"), "is there twice"),
    "path differs in case": (replace(B, image="LA/CAMUS/images/A.png"), "only in upper and lower case"),
    "image twice in a task": (replace(B, image="LA/CAMUS/images/a.png", group="patient a"), "two cases of task"),
    "group in two splits": (
        replace(B, group="patient a", split="test"),
        "is in two splits: train (LA/CAMUS/a) and test",
    ),
    "picture in two splits": (replace(B, source="X", image_sha256=digest("a"), split="test"), "is in two splits"),
    "path in two splits": (
        replace(B, source="X", task="myocardium", image="LA/CAMUS/images/a.png", split="validation"),
        "is in two splits",
    ),
    "picture in two groups": (replace(B, image_sha256=digest("a")), "has two groups, 'patient a'"),
    "picture of two places": (
        replace(B, source="X", image_sha256=digest("a"), labelled_place=0.5),
        "has two places, None",
    ),
}


@pytest.mark.parametrize("second,fact", CLASHES.values(), ids=list(CLASHES))
def test_clashes_between_cases_are_refused(second: Case, fact: str) -> None:
    with pytest.raises(ProPLError) as caught:
        make_list(make_case("a"), second)
    assert fact in str(caught.value)


def test_same_group_name_in_two_sources_is_two_groups() -> None:
    made = make_list(make_case("a", group="1"), make_case("b", group="1", source="X", split="test"))
    assert [case.split for case in made.cases] == ["train", "test"]


def test_one_picture_under_three_tasks_is_sound() -> None:
    three = [
        make_case("a", case_id=f"{index}/a", task=task, mask=f"{index}/a.png")
        for index, task in enumerate(("left atrium", "left ventricle", "myocardium"))
    ]
    assert len(make_list(*three).cases) == 3


def test_many_problems_are_told_at_once_with_their_number() -> None:
    bad = [make_case(str(index), split="val") for index in range(7)]
    with pytest.raises(ProPLError) as caught:
        make_list(*bad)
    message = str(caught.value)
    assert "7 problems" in message and "and 2 more" in message
    assert message.count("unknown split") == 5


def test_hash_is_of_the_cases_alone() -> None:
    a, b = make_case("a"), make_case("b", pixel_spacing_mm=(1.0, 1.0))
    first = Datalist(Path("one"), (a, b), "one")
    second = Datalist(Path("two"), (replace(b, pixel_spacing_mm=(1, 1)), a), "two", "other words")
    assert first.sha256 == second.sha256
    assert Datalist(Path("one"), (a, replace(b, split="test")), "one").sha256 != first.sha256


def test_hash_is_stable() -> None:
    row = {
        "case_id": "x", "group": "g", "image": "x.png", "image_sha256": "0" * 64, "mask": None, "mask_sha256": None,
        "pixel_spacing_mm": None, "source": "s", "split": "test", "task": "fetal head",
    }  # fmt: skip
    expected = digest(json.dumps([row], separators=(",", ":")))
    assert make_list(Case(**row)).sha256 == expected  # type: ignore[arg-type]


def test_labelled_place_is_written_only_where_there_is_one(tmp_path: Path) -> None:
    made = make_list(make_case("a"), make_case("b", labelled_place=0.1), make_case("c", labelled_place=0))
    made.write(tmp_path / "list.json")
    content = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    assert [row.get("labelled_place", "absent") for row in content["cases"]] == ["absent", 0.1, 0.0]
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    read = Datalist.read(tmp_path / "list.json")
    assert [case.labelled_place for case in read.cases] == [None, 0.1, 0.0]
    assert read.sha256 == made.sha256
    assert make_list(*made.cases[:2], make_case("c", labelled_place=0.2)).sha256 != made.sha256
    content["cases"][0]["labelled_place"] = None
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    (tmp_path / "null.json").write_text(json.dumps(content), encoding="utf-8")
    assert Datalist.read(tmp_path / "null.json").sha256 == made.sha256
    (tmp_path / "nan.json").write_text(json.dumps(content).replace("0.1", "NaN"), encoding="utf-8")
    with pytest.raises(ProPLError, match="below 1"):
        Datalist.read(tmp_path / "nan.json")


def test_select() -> None:
    other = make_case("c", task="thyroid nodule", split="test")
    made = make_list(make_case("a"), make_case("b", split="test"), other)
    assert [case.case_id for case in made.select("test").cases] == ["LA/CAMUS/b", "LA/CAMUS/c"]
    assert made.select(tasks=["TN"]).cases == (other,)
    assert made.select("test", ["left_atrium"]).cases == (made.cases[1],)
    assert made.select().cases == made.cases
    for split, tasks, fact in (
        ("tset", None, "did you mean 'test'"),
        (None, ["thyroid"], "unknown task"),
        ("train", ["TN"], "holds no case of split train and task thyroid nodule"),
    ):
        with pytest.raises(ProPLError, match=fact):
            made.select(split, tasks)


def test_items_hold_strings_and_numbers_only(tmp_path: Path) -> None:
    bare = make_case("b", mask=None, mask_sha256=None, pixel_spacing_mm=None)
    first, second = as_items([make_case("a"), bare], tmp_path)
    assert first == {
        "image": str(tmp_path / "LA" / "CAMUS" / "images" / "a.png"),
        "label": str(tmp_path / "LA" / "CAMUS" / "masks" / "a.png"),
        "task": "left atrium",
        "case_id": "LA/CAMUS/a",
        "group": "patient a",
        "source": "CAMUS",
        "pixel_spacing_mm": [0.5, 0.25],
    }
    assert "label" not in second and second["pixel_spacing_mm"] == [0.0, 0.0]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.json"
    make_list(make_case("a")).write(path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("propl_monai.common.files.os.fsync", full)
    with pytest.raises(ProPLError, match="No space left"):
        make_list(make_case("b")).write(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["list.json"]


@pytest.mark.parametrize("key", ["case_id", "image", "mask", "group", "source"])
@pytest.mark.parametrize("letter", ["\\ud800", "\\udce9"])
def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, key: str, letter: str) -> None:
    path = write_rows(tmp_path / "list.json", lambda row: row.update({key: "LETTER"}))
    path.write_text(path.read_text(encoding="utf-8").replace("LETTER", letter), encoding="utf-8")
    with pytest.raises(ProPLError, match=r"is not UTF-8|is not a line of text") as caught:
        Datalist.read(path)
    assert str(caught.value).encode()


@pytest.mark.parametrize("text", ["[" * 100_000, "1" + "0" * 5000], ids=["brackets", "digits"])
def test_json_that_python_does_not_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ProPLError, match="holds JSON that no datalist needs"):
        Datalist.read(tmp_path / "list.json")


def test_a_list_named_after_a_file_that_is_not_utf_8_is_read_back(tmp_path: Path) -> None:
    replace(make_list(make_case()), name="caf\udce9").write(tmp_path / "list.json")
    assert Datalist.read(tmp_path / "list.json").name == "caf\udce9"
