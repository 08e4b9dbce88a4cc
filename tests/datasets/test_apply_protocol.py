"""Protocols: who is chosen, how they are split, and that order, encoding and later data change nothing."""

from __future__ import annotations

import configparser
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatch
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from factories import ROOT

from propl_monai import tasks
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import labelled_images, labelled_place, unit_interval
from propl_monai.datasets.apply_protocol import Report, apply_protocol, split_datalist
from propl_monai.datasets.protocol import Protocol, Share, find_protocol, protocol_names, read_protocol
from propl_monai.errors import ProPLError

BENCHMARK = find_protocol("universal-8x800")
LEAKING = find_protocol("universal-8x800-image-level")


def make_case(task: str, source: str, group: str, name: str, encoder: str = "", **changes: Any) -> Case:
    """A case of a picture that all tasks of its source share, as files that `encoder` wrote."""
    code = tasks.find(task).code
    sha256 = hashlib.sha256(f"{encoder}{source}/{name}".encode()).hexdigest()
    paths = f"{source}/images/{name}.png", f"{source}/masks/{code}/{name}.png"
    case = Case(f"{code}/{source}/{name}", *paths, tasks.find(task).name, source, group, "train", sha256, sha256)
    return replace(case, **changes)


def make_source(codes: str, source: str, groups: int, each: int, encoder: str = "") -> list[Case]:
    return [
        make_case(code, source, f"g{group}", f"g{group}_{number}", encoder)
        for group in range(groups)
        for number in range(each)
        for code in codes.split()
    ]


def as_list(cases: Iterable[Case]) -> Datalist:
    return Datalist(Path("root"), tuple(cases), "mine", "Two circles.")


def protocol(shares: dict[str, dict[str, Share]] | None = None, **changes: Any) -> Protocol:
    made = Protocol("small", "For tests.", "group", None, "salt", 0.25, 0.15, (Fraction(1, 4),), shares)
    return replace(made, **changes)


def chosen_groups(cases: Iterable[Case], code: str, source: str) -> set[str]:
    return {case.group for case in cases if (case.task, case.source) == (tasks.find(code).name, source)}


def rows(report: Report) -> dict[tuple[str, str], tuple[int, int | None, int]]:
    return {(row.task, row.source): (row.found, row.wanted, row.chosen) for row in report.rows}


# --- what is chosen


def test_whole_groups_in_the_order_of_their_hashes() -> None:
    cases = make_source("FH", "HC18", 100, 3)
    made, report = apply_protocol(as_list(cases), protocol({"fetal head": {"HC18": Share(pictures=31)}}))
    order = sorted((f"g{number}" for number in range(100)), key=lambda group: unit_interval("salt", "HC18", group))
    assert chosen_groups(made.cases, "FH", "HC18") == set(order[:10])  # an eleventh group would make 33
    assert rows(report) == {("fetal head", "HC18"): (300, 31, 30)}
    assert report.missing == ["fetal head, HC18: 30 of 31 pictures (300 with a mask in the datalist)"]


def test_smaller_group_fills_what_a_larger_one_left() -> None:
    order = sorted((f"g{number}" for number in range(60)), key=lambda group: unit_interval("salt", "HC18", group))
    sizes = {group: 2 if group in order[:9] else 3 for group in order[:59]} | {order[59]: 1}
    cases = [make_case("FH", "HC18", group, f"{group}_{k}") for group, size in sizes.items() for k in range(size)]
    made, _ = apply_protocol(as_list(cases), protocol({"fetal head": {"HC18": Share(pictures=22)}}))
    assert chosen_groups(made.cases, "FH", "HC18") == {*order[:10], order[59]}  # 9 × 2 + 3 + 1
    assert len(made.cases) == 22


def test_few_frames_of_each_video_by_hash() -> None:
    cases = make_source("TG", "TG3K", 4, 30)
    made, report = apply_protocol(as_list(cases), protocol({"thyroid gland": {"TG3K": Share(of_each_group=5)}}))
    for group in ("g0", "g1", "g2", "g3"):
        names = sorted((f"{group}_{k}" for k in range(30)), key=lambda name: unit_interval("salt", "TG3K", name))
        assert {case.case_id for case in made.cases if case.group == group} == {f"TG/TG3K/{name}" for name in names[:5]}
    assert rows(report) == {("thyroid gland", "TG3K"): (120, None, 20)} and not report.missing


def test_only_pictures_with_a_mask_of_the_sources_asked_for() -> None:
    bare = [replace(case, mask=None, mask_sha256=None) for case in make_source("FH", "HC18", 50, 1)[:20]]
    cases = [*bare, *make_source("FH", "HC18", 50, 1)[20:], *make_source("FH", "Other", 50, 1)]
    made, report = apply_protocol(as_list(cases), protocol({"fetal head": {"HC18": Share(pictures=40)}}))
    assert {case.case_id for case in made.cases} == {case.case_id for case in cases[20:50]}
    assert rows(report) == {("fetal head", "HC18"): (30, 40, 30)}


def test_tasks_that_share_pictures_take_the_same_patients() -> None:
    cases = make_source("LA LV MD", "CAMUS", 500, 4)
    made, report = apply_protocol(as_list(cases), BENCHMARK)
    atrium, ventricle, muscle = (chosen_groups(made.cases, code, "CAMUS") for code in ("LA", "LV", "MD"))
    assert len(atrium) == 200 and atrium == ventricle
    assert len(muscle) == 100 and muscle < atrium
    assert Counter(case.task for case in made.cases) == {"left atrium": 800, "left ventricle": 800, "myocardium": 400}
    assert rows(report)["myocardium", "HMC-QU"] == (0, 400, 0)
    assert rows(report)["myocardium", "all"] == (2000, 800, 400)


def test_all_takes_every_case() -> None:
    cases = [*make_source("LA LV", "CAMUS", 60, 2), make_case("FH", "Own", "x", "x", mask=None, mask_sha256=None)]
    made, report = apply_protocol(as_list(cases), find_protocol("all"))
    assert {case.case_id for case in made.cases} == {case.case_id for case in cases}
    assert rows(report) == {
        ("fetal head", "Own"): (0, None, 1),
        ("left atrium", "CAMUS"): (120, None, 120),
        ("left ventricle", "CAMUS"): (120, None, 120),
    }


# --- what must not change it


def whole_set(encoder: str = "") -> list[Case]:
    """A set of every source of the benchmark; sizes differ from the real ones."""
    return [
        *make_source("BC", "BUSI", 500, 1, encoder),
        *make_source("BC", "UDIAT", 163, 1, encoder),
        *make_source("FH", "HC18", 450, 2, encoder),
        *make_source("LA LV MD", "CAMUS", 230, 4, encoder),
        *make_source("MD", "HMC-QU", 60, 9, encoder),
        *make_source("OT", "MMOTU", 900, 1, encoder),
        *make_source("TG", "TG3K", 16, 60, encoder),
        *make_source("TN", "DDTI", 300, 1, encoder),
        *make_source("TN", "TN3K", 1000, 1, encoder),
    ]


def summary(made: Datalist) -> dict[str, tuple[str, float | None]]:
    return {case.case_id: (case.split, case.labelled_place) for case in made.cases}


def test_order_encoding_and_later_data_change_nothing() -> None:
    cases = whole_set()
    once = summary(apply_protocol(as_list(cases), BENCHMARK)[0])
    assert summary(apply_protocol(as_list(cases[::-1]), BENCHMARK)[0]) == once
    assert summary(apply_protocol(as_list(whole_set("another encoder")), BENCHMARK)[0]) == once
    later = cases + make_source("TN", "A later source", 70, 2) + make_source("OT", "BUSI", 3, 1)
    assert summary(apply_protocol(as_list(later), BENCHMARK)[0]) == once
    # A source that comes later adds to its tasks and moves nothing.
    without = [case for case in cases if case.source != "HMC-QU"]
    fewer = summary(apply_protocol(as_list(without), BENCHMARK)[0])
    assert fewer.items() < once.items() and {key.split("/")[1] for key in once.keys() - fewer.keys()} == {"HMC-QU"}


def test_groups_are_never_divided_and_labelled_sets_are_nested() -> None:
    made, report = apply_protocol(as_list(whole_set()), BENCHMARK)
    homes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case in made.cases:
        homes[case.source, case.group].add(case.split)
        assert case.labelled_place == labelled_place(case.source, case.case_id.split("/", 2)[2])
    assert all(len(splits) == 1 for splits in homes.values())
    sets = [labelled_images(made.cases, fraction) for fraction in ("1/16", "1/8", "1/4")]
    assert sets[0] < sets[1] < sets[2]
    for row in report.rows:
        assert row.labelled["1/16"] <= row.labelled["1/8"] <= row.labelled["1/4"] <= row.splits["train"]
    for index, fraction in enumerate(("1/16", "1/8", "1/4")):
        assert sum(row.labelled[fraction] for row in report.rows if row.source != "all") == len(sets[index])


def test_a_group_has_one_split_under_every_protocol() -> None:
    small, _ = apply_protocol(as_list(whole_set()), BENCHMARK)
    everything = summary(apply_protocol(as_list(whole_set()), find_protocol("all"))[0])
    assert summary(small).items() < everything.items()


# --- the leaking one


def test_image_level_divides_groups_but_no_picture() -> None:
    cases = make_source("LA LV MD", "CAMUS", 500, 4)
    made, report = apply_protocol(as_list(cases), LEAKING)
    patients: dict[str, set[str]] = defaultdict(set)
    pictures: dict[str, set[str]] = defaultdict(set)
    for case in made.cases:
        assert case.group == case.case_id.split("/", 2)[2]
        patients[case.group.partition("_")[0]].add(case.split)
        pictures[case.image_sha256].add(case.split)
    assert sum({"train", "test"} <= splits for splits in patients.values()) > 50
    assert all(len(splits) == 1 for splits in pictures.values())
    assert LEAKING.leaks and made.description.startswith(f"LEAKS: {LEAKING.leaks}")
    assert str(report).splitlines()[1] == f"LEAKS: {LEAKING.leaks}"
    kept = {case.case_id for case in cases}
    assert {case.case_id for case in made.cases} < kept


def test_one_picture_under_two_names_stays_whole_at_image_level() -> None:
    same = hashlib.sha256(b"one picture").hexdigest()
    pair = [make_case("TN", "DDTI", group, f"{group}_1", image_sha256=same) for group in ("150", "233")]
    with pytest.raises(ProPLError, match="has two groups"):
        as_list(pair)
    across = [pair[0], make_case("TN", "TN3K", "x", "x", image_sha256=same), *make_source("TN", "TN3K", 50, 1)]
    made, _ = apply_protocol(as_list(across), replace(LEAKING, tasks=None))
    twins = [case for case in made.cases if case.image_sha256 == same]
    assert len(twins) == 2 and len({(case.split, case.labelled_place) for case in twins}) == 1


# --- reports and files


def test_report_is_a_table() -> None:
    shares = {"breast cancer": {"BUSI": Share(pictures=3), "UDIAT": Share(pictures=2)}, "fetal head": {"HC18": Share()}}
    cases = make_source("BC", "BUSI", 3, 1) + make_source("BC", "UDIAT", 1, 1) + make_source("FH", "HC18", 1, 1)
    wanted = protocol(shares, test=0.0, validation=0.0, labelled=(Fraction(1, 8), Fraction(1)))
    made, report = apply_protocol(as_list(cases), wanted)
    assert (made.name, made.root) == ("mine (small)", Path("root"))
    assert made.description == "Protocol small: For tests. Two circles."
    # 1/8 gives each task of each source its minimum of two, as far as there are two.
    lower = [labelled_place("BUSI", f"g{k}_0") < 0.125 for k in range(3)]
    eighth = max(2, sum(lower))
    assert str(report).splitlines() == [
        "Protocol small",
        "task           source  found  wanted  chosen  train  validation  test  1/8  1",
        f"breast cancer  BUSI    3      3       3       3      0           0     {eighth}    3",
        "breast cancer  UDIAT   1      2       1       1      0           0     1    1",
        f"breast cancer  all     4      5       4       4      0           0     {eighth + 1}    4",
        "fetal head     HC18    1      all     1       1      0           0     1    1",
        "fewer than wanted: breast cancer, UDIAT: 1 of 2 pictures (1 with a mask in the datalist)",
        "Paths start from the same folder as before: train with that dataset_dir",
    ]


def test_split_datalist_reads_and_writes(tmp_path: Path) -> None:
    as_list(make_source("FH", "HC18", 60, 1)).write(tmp_path / "list.json")
    report = split_datalist(tmp_path / "list.json", "universal-8x800", tmp_path / "split.json")
    assert rows(report)["fetal head", "HC18"] == (60, 800, 60)
    written = Datalist.read(tmp_path / "split.json")
    expected, _ = apply_protocol(Datalist.read(tmp_path / "list.json"), BENCHMARK)
    assert written.sha256 == expected.sha256 and written.name == "mine (universal-8x800)"
    with pytest.raises(ProPLError, match="is the datalist itself"):
        split_datalist(tmp_path / "list.json", "all", tmp_path / "list.json")
    with pytest.raises(ProPLError, match="did you mean 'universal-8x800'"):
        split_datalist(tmp_path / "list.json", "universal8x800", tmp_path / "none.json")
    as_list(make_source("FH", "Own", 2, 1)).write(tmp_path / "own.json")
    with pytest.raises(ProPLError, match="holds no picture with a mask that protocol universal-8x800 takes"):
        split_datalist(tmp_path / "own.json", "universal-8x800", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_the_packaged_protocols_are_those_of_the_paper() -> None:
    assert protocol_names() == ["all", "universal-8x800", "universal-8x800-image-level"]
    for name in protocol_names():
        assert find_protocol(name).name == name
        assert f"`{name}`" in (ROOT / "datalists" / "README.md").read_text(encoding="utf-8")
    for each in (BENCHMARK, LEAKING):
        assert each.tasks is not None and tuple(each.tasks) == tasks.NAMES
        for shares in each.tasks.values():
            assert sum(share.pictures or 0 for share in shares.values()) == 800
        assert (each.test, each.labelled) == (0.25, (Fraction(1, 16), Fraction(1, 8), Fraction(1, 4)))
    assert (BENCHMARK.leaks, BENCHMARK.level, LEAKING.level) == (None, "group", "picture")


def test_the_packaged_protocols_are_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = setup["options.package_data"]["*"].replace("\n", ",").split(",")
    packaged = list((ROOT / "propl_monai" / "datasets").glob("protocol.*.json"))
    assert packaged
    for path in packaged:
        assert any(fnmatch(path.name, pattern.strip()) for pattern in patterns)


SOUND = json.loads((ROOT / "propl_monai" / "datasets" / "protocol.universal-8x800.json").read_text(encoding="utf-8"))
BAD_FILES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda file: file.update(lable=1), "unknown key 'lable'"),
    "missing key": (lambda file: file.pop("salt"), "has no key 'salt'"),
    "format": (lambda file: file.update(format="propl-protocol/2"), "reads 'propl-protocol/1'"),
    "level": (lambda file: file.update(level="groups"), "did you mean 'group'"),
    "name": (lambda file: file.update(name=" "), "name: is not a text"),
    "leaks": (lambda file: file.update(leaks=False), "leaks: is not a sentence"),
    "share": (lambda file: file.update(test=1), "test: is not a share"),
    "text for a share": (lambda file: file.update(validation="0.1"), "validation: is not a share"),
    "fractions": (lambda file: file.update(labelled="1/8"), "labelled: is not a list"),
    "fraction": (lambda file: file.update(labelled=["8"]), "8 is not above 0"),
    "task": (lambda file: file["tasks"].update(thyroidgland={"X": {}}), "did you mean 'thyroid gland'"),
    "no task": (lambda file: file.update(tasks={}), "tasks: is not tasks and their sources"),
    "sources": (lambda file: file["tasks"].update(TG=["X"]), "tasks, TG: is not sources"),
    "count": (lambda file: file["tasks"].update(TG={"X": {"pictures": 0}}), "pictures: 0 is not a count"),
    "word": (lambda file: file["tasks"].update(TG={"X": {"picture": 3}}), "did you mean 'pictures'"),
}


@pytest.mark.parametrize("change,fact", BAD_FILES.values(), ids=list(BAD_FILES))
def test_bad_protocol_file_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], fact: str) -> None:
    content = json.loads(json.dumps(SOUND))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert find_protocol(str(path)) == BENCHMARK
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ProPLError) as caught:
        read_protocol(path)
    assert fact in str(caught.value) and str(path) in caught.value.where


@pytest.mark.parametrize("content,fact", [(b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[]", "an object")])
def test_other_files_are_refused(tmp_path: Path, content: bytes, fact: str) -> None:
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(ProPLError, match=fact):
        read_protocol(tmp_path / "mine.json")
    with pytest.raises(ProPLError, match="does not exist"):
        find_protocol(str(tmp_path / "none.json"))
