"""Splits by hash: nothing shared, nothing random, nothing moved by later data; labelled sets nested."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import (
    assign_splits,
    assign_splits_but,
    find_units,
    labelled_images,
    labelled_place,
    parse_fraction,
    splits_not_by_hash,
    unit_interval,
)
from propl_monai.errors import ProPLError

TASKS = ("left atrium", "left ventricle", "thyroid gland")


def make_case(source: str, group: str, picture: str, task: str = "left atrium", **changes: Any) -> Case:
    name = f"{source}/{group}/{picture}"
    sha256 = hashlib.sha256(picture.encode()).hexdigest()
    case = Case(
        f"{task}/{name}", f"{task}/{name}.png", f"{task}/{name}_mask.png", task, source, group, "train", sha256, sha256
    )
    return replace(case, **changes)


def many(source: str, groups: int, task: str = "left atrium") -> list[Case]:
    return [make_case(source, f"g{index}", f"{source}{index}", task) for index in range(groups)]


def splits_of(cases: Sequence[Case]) -> dict[str, str]:
    return {case.case_id: case.split for case in assign_splits(cases)}


def test_place_is_the_published_hash() -> None:
    digest = hashlib.sha256(b"salt|CAMUS|patient0001").hexdigest()
    place = unit_interval("salt", "CAMUS", "patient0001")
    assert Fraction(place) == Fraction(int(digest[:13], 16), 16**13)
    assert 0 <= place < 1


def test_large_source_goes_by_threshold() -> None:
    cases = many("S", 400)
    for case in assign_splits(cases):
        place = unit_interval("propl-monai-split-1", "S", case.group)
        # A quarter is test; of the rest, which begins at 0.25, the first 15 % is validation: 0.25 + 0.75 * 0.15.
        assert case.split == ("test" if place < 0.25 else "validation" if place < 0.3625 else "train")


def test_small_source_goes_by_rank() -> None:
    counts = Counter(splits_of(many("S", 14)).values())
    assert counts == {"test": 4, "validation": 2, "train": 8}  # round(3.5), round(0.15 * 10), the rest
    ordered = sorted(
        assign_splits(many("S", 14)), key=lambda case: unit_interval("propl-monai-split-1", "S", case.group)
    )
    assert [case.split for case in ordered] == ["test"] * 4 + ["validation"] * 2 + ["train"] * 8


@pytest.mark.parametrize("groups,expected", [(1, (1, 0, 0)), (3, (2, 0, 1)), (4, (2, 1, 1)), (8, (4, 2, 2))])
def test_tiny_sources_keep_train_first(groups: int, expected: tuple[int, int, int]) -> None:
    counts = Counter(splits_of(many("S", groups)).values())
    assert tuple(counts[split] for split in ("train", "validation", "test")) == expected


def test_rare_task_of_a_large_source_gets_its_minimum() -> None:
    common = many("S", 100)
    place = {case.group: unit_interval("propl-monai-split-1", "S", case.group) for case in common}
    high = sorted(place, key=place.__getitem__)[-8:]  # all of them in train by the threshold
    rare = [make_case("S", group, f"rare{group}", "thyroid gland") for group in high]
    placed = {case.group: case.split for case in assign_splits(common + rare)}
    assert [placed[group] for group in high] == ["test"] * 2 + ["validation"] * 2 + ["train"] * 4
    unchanged = [case.group for case in common if case.group not in high]
    before = {case.group: case.split for case in assign_splits(common)}
    assert all(placed[group] == before[group] for group in unchanged)


def test_groups_that_share_a_picture_become_one() -> None:
    # b of S shares a picture with c of S, and c of S another one with a of T: one unit of three groups.
    cases = [
        make_case("S", "b", "one"),
        make_case("S", "c", "one", "left ventricle"),
        make_case("S", "c", "two"),
        make_case("T", "a", "two", "thyroid gland"),
        make_case("S", "d", "three"),
    ]
    assert [unit.keys for unit in find_units(cases) if len(unit.keys) > 1] == [(("S", "b"), ("S", "c"), ("T", "a"))]
    placed = assign_splits(cases)
    assert [case.group for case in placed] == ["b", "b", "b", "a", "d"]
    assert len({case.split for case in placed[:4]}) == 1
    assert assign_splits(placed) == placed
    Datalist(Path("."), placed, "sound")


def test_empty_and_bad_arguments() -> None:
    assert assign_splits([]) == ()
    for wrong in ({"test": 1.0}, {"validation": -0.1}, {"test": float("nan")}, {"minimum_units": -1}):
        with pytest.raises(ProPLError):
            assign_splits(many("S", 4), **wrong)  # type: ignore[arg-type]
    assert set(splits_of(many("S", 20)).values()) == {"train", "validation", "test"}
    assert {case.split for case in assign_splits(many("S", 20), test=0, validation=0)} == {"train"}


CASES = st.lists(
    st.builds(
        make_case,
        st.sampled_from(["S", "T"]),
        st.integers(0, 60).map(lambda number: f"g{number}"),
        st.integers(0, 150).map(lambda number: f"picture{number}"),
        st.sampled_from(TASKS),
    ),
    min_size=1,
    max_size=150,
    unique_by=lambda case: case.case_id,
)


@settings(max_examples=60, deadline=None)
@given(CASES, st.randoms(use_true_random=False))
def test_properties_of_any_set_of_cases(cases: list[Case], random: Any) -> None:
    placed = assign_splits(cases)
    homes: dict[object, set[str]] = defaultdict(set)
    for case in placed:
        homes[case.source, case.group].add(case.split)
        homes[case.image_sha256].add(case.split)
    assert all(len(splits) == 1 for splits in homes.values())

    shuffled = list(cases)
    random.shuffle(shuffled)
    assert set(assign_splits(shuffled)) == set(placed)
    assert assign_splits(placed) == placed

    later = many("A later source", 45, "thyroid gland")
    assert assign_splits(cases + later)[: len(cases)] == placed

    sets = [labelled_images(placed, fraction) for fraction in ("1/16", "1/8", "1/4", 1)]
    assert sets[0] <= sets[1] <= sets[2] <= sets[3]
    assert sets[3] == {case.case_id for case in placed if case.split == "train"}
    assert [labelled_images(assign_splits(shuffled), fraction) for fraction in ("1/16", "1/8", "1/4", 1)] == sets
    pictures = {case.image_sha256 for case in placed if case.case_id in sets[0]}
    assert sets[0] == {case.case_id for case in placed if case.split == "train" and case.image_sha256 in pictures}


def test_each_task_of_each_source_has_two_labelled() -> None:
    cases = many("S", 30) + many("T", 30, "left ventricle") + many("U", 1, "thyroid gland")
    labelled = labelled_images(cases, 1e-9)
    assert Counter(case.source for case in cases if case.case_id in labelled) == {"S": 2, "T": 2, "U": 1}


def test_labelled_by_threshold_and_independent_of_later_data() -> None:
    cases = many("S", 300)
    expected = {case.case_id for case in cases if unit_interval("propl-monai-labelled-1", case.image_sha256) < 0.125}
    assert labelled_images(cases, "1/8") == expected
    assert labelled_images(cases + many("T", 300), 0.125) & {case.case_id for case in cases} == expected
    assert 20 < len(expected) < 55  # 37.5 expected, standard deviation 5.7


def test_only_train_cases_with_a_mask_are_labelled() -> None:
    cases = [
        make_case("S", "a", "a", split="test"),
        make_case("S", "b", "b", mask=None, mask_sha256=None),
        make_case("S", "c", "c"),
    ]
    assert labelled_images(cases, 1) == {cases[2].case_id}


def test_fractions() -> None:
    assert parse_fraction("1/8") == parse_fraction(0.125) == parse_fraction("0.125") == Fraction(1, 8)
    assert parse_fraction(1) == 1
    for wrong in ("an eighth", "1/0", 0, -0.5, 1.5, "17/16", float("nan"), float("inf"), None):
        with pytest.raises(ProPLError, match="labelled fraction"):
            parse_fraction(wrong)  # type: ignore[arg-type]


def placed_by_name(cases: Sequence[Case]) -> list[Case]:
    return [replace(case, labelled_place=labelled_place(case.source, case.group)) for case in cases]


def test_place_by_name_is_the_published_hash() -> None:
    digest = hashlib.sha256(b"propl-monai-labelled-names-1|BUSI|benign (1)").hexdigest()
    assert Fraction(labelled_place("BUSI", "benign (1)")) == Fraction(int(digest[:13], 16), 16**13)


def test_labelled_place_decides_where_there_is_one() -> None:
    places = (0.0, 0.0624, 0.0625, 0.124, 0.125, 0.9)
    cases = [make_case("S", f"{place}", f"{place}", labelled_place=place) for place in places]

    def chosen(fraction: str | int) -> set[str]:
        return {case.group for case in cases if case.case_id in labelled_images(cases, fraction)}

    assert chosen("1/16") == {"0.0", "0.0624"}  # below the fraction, not at it
    assert chosen("1/8") == {"0.0", "0.0624", "0.0625", "0.124"}
    assert chosen(1) == {case.group for case in cases}
    late = [replace(case, labelled_place=0.5 + case.labelled_place / 2) for case in cases if case.labelled_place]
    assert {case.group for case in late if case.case_id in labelled_images(late, "1/16")} == {"0.0624", "0.0625"}


def test_two_encodings_of_the_same_pictures_give_the_same_lists() -> None:
    once = placed_by_name(many("S", 200))
    again = [replace(case, image_sha256=hashlib.sha256(case.image_sha256.encode()).hexdigest()) for case in once]
    assert [case.split for case in assign_splits(again)] == [case.split for case in assign_splits(once)]
    for fraction in ("1/16", "1/8", "1/4"):
        assert labelled_images(assign_splits(again), fraction) == labelled_images(assign_splits(once), fraction)


def test_one_picture_gets_the_lowest_of_its_places() -> None:
    cases = [
        make_case("S", "a", "one", labelled_place=0.7),
        make_case("T", "b", "one", labelled_place=0.2),
        make_case("U", "c", "one"),
        make_case("S", "d", "two"),
    ]
    placed = assign_splits(cases)
    assert [case.labelled_place for case in placed] == [0.2, 0.2, 0.2, None]
    assert {case.labelled_place for case in assign_splits(cases[::-1])} == {0.2, None}
    Datalist(Path("."), placed, "sound")


def test_kept_splits_stay_and_what_shares_a_picture_follows() -> None:
    cases = [*many("A", 8), make_case("B", "b", "A0")]  # the picture of A's first group
    kept = {cases[index].case_id: split for index, split in ((0, "train"), (1, "test"), (2, "validation"))}
    placed = assign_splits_but(cases, kept)
    assert [case.split for case in placed[:3]] == ["train", "test", "validation"]
    assert placed[8].split == "train"
    assert placed[3:8] == assign_splits(cases)[3:8]
    twice = assign_splits_but(cases, kept | {cases[8].case_id: "validation"})
    assert (twice[0].split, twice[8].split) == ("validation", "validation")


def test_splits_of_another_hand_are_told_from_those_of_hashes() -> None:
    hashed = assign_splits([*many("A", 8), *many("B", 8)])
    assert splits_not_by_hash(hashed) == {} == splits_not_by_hash([])
    turned = [replace(case, split="test") if case.source == "B" else case for case in hashed]
    assert splits_not_by_hash(turned) == {case.case_id: "test" for case in turned if case.source == "B"}
