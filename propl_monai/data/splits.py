"""Train, validation and test splits and labelled pictures, by hashes alone: the same on every machine.

No random numbers and no order of files enter. A group (patient, examination, video) and everything that shares a picture
with it form one *unit*, whatever task or source they are filed under, and a unit is never divided.

Two rules, and why there are two:

* A family of sources with `RANK_BELOW` units or more: each unit by its own hash against fixed thresholds. Adding data
  later moves nothing that was there before. The price: the shares are met in expectation only (a quarter of 200 units
  comes out as 50 give or take 6).
* A smaller family: units in the order of their hashes, the first quarter to test and so on. The shares are exact, which
  14 videos need; the price is that one more video can move another one.

A family is the sources that are linked by a shared picture; nearly always it is one source. After either rule each task
of each source is given its minimum of units in test and in validation, taking the units whose hash is nearest.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from scipy.cluster.hierarchy import DisjointSet

from propl_monai.data.cases import SPLITS, Case
from propl_monai.errors import ProPLError

SPLIT_SALT = "propl-monai-split-1"  # a new salt is a new benchmark: never change it, add another
LABELLED_SALT = "propl-monai-labelled-1"
LABELLED_NAMES_SALT = "propl-monai-labelled-names-1"
TEST_SHARE = 0.25
VALIDATION_SHARE = 0.15  # of what the test split leaves
MINIMUM_UNITS = 2
RANK_BELOW = 40
MINIMUM_LABELLED = 2

GroupKey = tuple[str, str]  # source, group
TaskSource = tuple[str, str]


@dataclass(frozen=True)
class Unit:
    """Groups that share a picture, so that they must share a split.

    Attributes:
        keys: the (source, group) pairs, sorted.
        place: hash of the first pair, in [0, 1).
        members: the (task, source) pairs that it holds cases of.
    """

    keys: tuple[GroupKey, ...]
    place: float
    members: frozenset[TaskSource]


def unit_interval(*parts: str) -> float:
    """The SHA-256 of the parts joined by `|`, as a number in [0, 1): its first 52 bits, which a float holds exactly."""
    return int(hashlib.sha256("|".join(parts).encode("utf-8")).hexdigest()[:13], 16) / 2**52


def labelled_place(source: str, name: str) -> float:
    """The `Case.labelled_place` of a picture by its source and its name there, e.g. `("CAMUS", "patient0001_2CH_ED")`.

    By name, so that everybody who has converted the same originals gets the same labelled pictures, whatever bytes an
    encoder wrote.
    """
    return unit_interval(LABELLED_NAMES_SALT, source, name)


def assign_splits(
    cases: Iterable[Case],
    test: float = TEST_SHARE,
    validation: float = VALIDATION_SHARE,
    minimum_units: int = MINIMUM_UNITS,
) -> tuple[Case, ...]:
    """Give every case its split, and one group name to groups of a source that share a picture.

    Cases of one picture that differ in `labelled_place` all get the lowest.

    Args:
        cases: in any order; their present splits are ignored.
        test: share of the units that go to test, in [0, 1).
        validation: share of the remaining units that go to validation, in [0, 1).
        minimum_units: of each task of each source in test and in validation, but never more than a quarter of its units.

    Returns:
        The cases in the order given. Groups without any mask are all in train. Running the function on its own result
        changes nothing.
    """
    cases = tuple(cases)
    for name, share in (("test", test), ("validation", validation)):
        if not 0 <= share < 1:
            raise ProPLError(f"{name} share", f"{share} is not in [0, 1)", "give a share such as 0.25")
    if minimum_units < 0:
        raise ProPLError("minimum_units", f"{minimum_units} is negative", "give 0 or more")
    units = find_units(cases)
    with_mask = {(case.source, case.group) for case in cases if case.mask is not None}
    shown = [unit for unit in units if not with_mask.isdisjoint(unit.keys)]
    # Nothing can be measured on pictures without a mask, and training can use them.
    splits: dict[Unit, str] = dict.fromkeys(set(units) - set(shown), "train")
    for family in _families(shown):
        splits.update(_first_splits(family, test, validation))
        # Test first: it may take from validation, which is then filled from train, which nobody else fills.
        for split, share in (("test", test), ("validation", validation)):
            if share > 0:
                _fill(family, splits, split, minimum_units)
    return tuple(_with_splits(cases, units, splits))


def splits_not_by_hash(cases: Sequence[Case]) -> dict[str, str]:
    """The splits of the sources whose splits are not what hashes give: official ones, or the user's own; by case id."""
    by_hash = assign_splits(cases)
    own = {case.source for case, other in zip(cases, by_hash, strict=True) if case.split != other.split}
    return {case.case_id: case.split for case in cases if case.source in own}


def assign_splits_but(cases: Iterable[Case], kept: Mapping[str, str]) -> tuple[Case, ...]:
    """As `assign_splits`, but some cases keep a split that somebody else gave them, and what shares a unit follows.

    Args:
        cases: in any order.
        kept: split by case id. A unit that is given two goes to the one held out furthest: test, then validation.
    """
    placed = assign_splits(cases)
    homes = {key: unit for unit in find_units(placed) for key in unit.keys}
    splits: dict[Unit, str] = {}
    for case in placed:
        if case.case_id in kept:
            unit = homes[case.source, case.group]
            splits[unit] = max(kept[case.case_id], splits.get(unit, SPLITS[0]), key=SPLITS.index)
    return tuple(replace(case, split=splits.get(homes[case.source, case.group], case.split)) for case in placed)


def find_units(cases: Iterable[Case]) -> list[Unit]:
    """Unite the groups that share a picture (same bytes), through any chain, in the order of their places."""
    sets: DisjointSet = DisjointSet()
    members: dict[GroupKey, set[TaskSource]] = defaultdict(set)
    for case in cases:
        key = (case.source, case.group)
        sets.add(key)
        sets.add(case.image_sha256)
        sets.merge(key, case.image_sha256)
        members[key].add((case.task, case.source))
    units = []
    for subset in sets.subsets():
        keys = tuple(sorted(item for item in subset if isinstance(item, tuple)))
        units.append(Unit(keys, unit_interval(SPLIT_SALT, *keys[0]), frozenset().union(*(members[k] for k in keys))))
    return sorted(units, key=lambda unit: (unit.place, unit.keys))


def labelled_images(
    cases: Iterable[Case], fraction: str | float | Fraction, minimum: int = MINIMUM_LABELLED
) -> set[str]:
    """The train cases that count as labelled: those whose picture's place is below the fraction.

    The place is `Case.labelled_place`, or the hash of the picture file's bytes where there is none.

    The sets are nested (1/16 in 1/8 in 1/4), the same for all tasks of a picture, and independent of order and of data
    added later. Each source gets its fraction in expectation; each task of each source gets at least `minimum` pictures,
    those with the lowest places, and they then are labelled under their other tasks too.

    Args:
        cases: any splits; only train cases with a mask can be labelled.
        fraction: `"1/8"`, 0.125 or 1; above 0 and at most 1.
        minimum: labelled pictures of each task of each source, as far as there are any.

    Returns:
        The `case_id` of every labelled case.
    """
    limit = parse_fraction(fraction)
    pool = [case for case in cases if case.split == "train" and case.mask is not None]
    places = {case.image_sha256: unit_interval(LABELLED_SALT, case.image_sha256) for case in pool}
    places |= {case.image_sha256: case.labelled_place for case in pool if case.labelled_place is not None}
    chosen = {image for image, place in places.items() if place < limit}
    images: dict[TaskSource, set[str]] = defaultdict(set)
    for case in pool:
        images[case.task, case.source].add(case.image_sha256)
    for candidates in images.values():
        chosen.update(sorted(candidates, key=lambda image: (places[image], image))[:minimum])
    return {case.case_id for case in pool if case.image_sha256 in chosen}


def parse_fraction(text: str | float | Fraction) -> Fraction:
    """A fraction in (0, 1] from `"1/8"`, `"0.125"`, 0.125 or 1."""
    try:
        fraction = Fraction(text)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ProPLError("labelled fraction", f"{text!r} is not a number", "give one such as 1/8 or 0.125") from error
    if not 0 < fraction <= 1:
        raise ProPLError("labelled fraction", f"{text} is not above 0 and at most 1", "give one such as 1/8 or 0.125")
    return fraction


def _families(units: Sequence[Unit]) -> list[list[Unit]]:
    """The units of sources that are linked by a unit of more than one source, each family in the order of its places."""
    sources: DisjointSet = DisjointSet()
    for unit in units:
        for source, _ in unit.keys:
            sources.add(source)
            sources.merge(source, unit.keys[0][0])
    families: dict[Hashable, list[Unit]] = defaultdict(list)
    for unit in units:
        families[sources[unit.keys[0][0]]].append(unit)
    return list(families.values())


def _first_splits(family: list[Unit], test: float, validation: float) -> dict[Unit, str]:
    """Splits by threshold, or by rank in a small family; `family` is in the order of places."""
    if len(family) >= RANK_BELOW:
        places = [unit.place for unit in family]
        test_end, validation_end = test, test + (1 - test) * validation
    else:
        places = [float(rank) for rank in range(len(family))]
        test_end = round(test * len(family))
        validation_end = test_end + round(validation * (len(family) - test_end))
    return {
        unit: "test" if place < test_end else "validation" if place < validation_end else "train"
        for unit, place in zip(family, places, strict=True)
    }


def _fill(family: list[Unit], splits: dict[Unit, str], split: str, minimum: int) -> None:
    """Move the nearest units into `split` until each task of each source has its minimum there; changes `splits`."""
    donors = ("validation", "train") if split == "test" else ("train",)
    for member in sorted(frozenset().union(*(unit.members for unit in family))):
        own = [unit for unit in family if member in unit.members]
        missing = min(minimum, len(own) // 4) - sum(splits[unit] == split for unit in own)
        # The order of places is the order of nearness: both donors lie above the split that is being filled.
        nearest = [unit for unit in own if splits[unit] in donors]
        for unit in nearest[: max(missing, 0)]:
            splits[unit] = split


def _with_splits(cases: Sequence[Case], units: Sequence[Unit], splits: dict[Unit, str]) -> Iterable[Case]:
    homes = {key: unit for unit in units for key in unit.keys}
    lowest: dict[str, float] = {}
    for case in cases:
        if case.labelled_place is not None:
            lowest[case.image_sha256] = min(case.labelled_place, lowest.get(case.image_sha256, 1.0))
    for case in cases:
        unit = homes[case.source, case.group]
        group = next(group for source, group in unit.keys if source == case.source)  # the keys are sorted
        yield replace(case, group=group, split=splits[unit], labelled_place=lowest.get(case.image_sha256))
