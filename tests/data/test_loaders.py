"""Two streams in step: draws that depend on (seed, epoch, position) alone, epochs of every size, errors of workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from monai.data import DataLoader, Dataset
from monai.transforms import Compose
from PIL import Image

from propl_monai.data import loaders, transforms
from propl_monai.data.loaders import DrawnDataset, PairedLoader, StreamSampler
from propl_monai.datasets.cohort import TrainingCohort
from propl_monai.errors import ProPLError, find_cause

sizes = some.integers(1, 9)
quickly = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SIZE = (32, 32)


class Numbers(torch.utils.data.Dataset):
    """Stands for a `DrawnDataset` and gives back what it was asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: tuple[int, int]) -> dict[str, int]:
        return {"index": index[0], "seed": index[1]}


def paired(
    labelled: int, unlabelled: int, batch_l: int = 2, batch_u: int = 2, seed: int = 0, steps: int | None = None
) -> PairedLoader:
    data: Any = (Numbers(labelled), Numbers(unlabelled))
    return PairedLoader(*data, batch_l, batch_u, seed, steps=steps)


def batches(loader: PairedLoader, stream: str, key: str = "index") -> list[list[int]]:
    return [part[key].tolist() for batch in loader if (part := batch[stream]) is not None]


def flat(lists: list[list[int]]) -> list[int]:
    return [number for part in lists for number in part]


@pytest.fixture(scope="module")
def cohort(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingCohort:
    return TrainingCohort(str(phantoms), None, str(tmp_path_factory.mktemp("run")), ["LA", "LV"], "1/16")


@pytest.fixture(scope="module")
def datasets(cohort: TrainingCohort) -> tuple[DrawnDataset, DrawnDataset]:
    return (
        DrawnDataset(cohort.labelled, transforms.training(SIZE, "half", photometric=0.5)),
        DrawnDataset(cohort.unlabelled, transforms.training(SIZE, "half", strong_view=0.5)),
    )


def epoch_of(loader: PairedLoader, epoch: int) -> Iterator[dict[str, dict | None]]:
    loader.set_epoch(epoch)
    return iter(loader)


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) if isinstance(first[key], torch.Tensor) else first[key] == second[key]
        for key in first
    )


def test_draws_do_not_depend_on_workers_nor_on_what_was_drawn_before(
    datasets: tuple[DrawnDataset, DrawnDataset],
) -> None:
    alone = PairedLoader(*datasets, 3, 2, seed=5, num_workers=0)
    list(epoch_of(alone, 1))
    second = list(epoch_of(alone, 2))
    torch.manual_seed(99)
    np.random.seed(99)
    helped = list(epoch_of(PairedLoader(*datasets, 3, 2, seed=5, num_workers=2), 2))
    assert len(second) == len(helped) > 1
    for first, other in zip(second, helped, strict=True):
        for stream in ("labelled", "unlabelled"):
            left, right = first[stream], other[stream]
            assert left is not None and right is not None and equal(left, right)


def test_epochs_and_seeds_differ(datasets: tuple[DrawnDataset, DrawnDataset]) -> None:
    def first(seed: int, epoch: int) -> Any:
        batch = next(epoch_of(PairedLoader(*datasets, 2, 2, seed=seed), epoch))
        return (batch["labelled"] or {})["image"]

    assert torch.equal(first(0, 1), first(0, 1))
    assert not torch.equal(first(0, 1), first(0, 2))
    assert not torch.equal(first(0, 1), first(1, 1))


def test_a_batch_holds_what_a_method_needs(datasets: tuple[DrawnDataset, DrawnDataset]) -> None:
    batch: Any = next(iter(PairedLoader(*datasets, 2, 3, seed=0)))
    assert batch["labelled"]["image"].shape == batch["labelled"]["label"].shape == (2, 1, *SIZE)
    assert batch["unlabelled"]["image"].shape == batch["unlabelled"]["image_strong"].shape == (3, 1, *SIZE)
    assert "label" not in batch["unlabelled"]
    assert all(task in ("left atrium", "left ventricle") for task in batch["labelled"]["task"])


def test_an_image_drawn_twice_is_seen_in_two_views(datasets: tuple[DrawnDataset, DrawnDataset]) -> None:
    one = DrawnDataset(datasets[0].data[:1], datasets[0].transform)
    images = [batch["labelled"]["image"] for batch in PairedLoader(one, datasets[1], 2, 1, seed=0)]  # type: ignore[index]
    views = torch.cat(images)
    assert len(views) > 3
    assert len({view.numpy().tobytes() for view in views}) == len(views)


@quickly
@given(sizes, some.integers(0, 9), sizes, sizes, some.integers(0, 3))
def test_an_epoch_of_any_size(labelled: int, unlabelled: int, batch_l: int, batch_u: int, epoch: int) -> None:
    """The longer stream passes once; the shorter is drawn evenly; only the last batch of the longer may be short."""
    loader = paired(labelled, unlabelled, batch_l, batch_u)
    loader.set_epoch(epoch)
    steps = max(-(-labelled // batch_l), -(-unlabelled // batch_u))
    assert len(loader) == steps == sum(1 for _ in loader)
    for stream, size, batch in (("labelled", labelled, batch_l), ("unlabelled", unlabelled, batch_u)):
        drawn = batches(loader, stream)
        if size == 0:
            assert drawn == [] and all(one[stream] is None for one in loader)
            continue
        counts = Counter(flat(drawn))
        assert set(counts) <= set(range(size)) and len(drawn) == steps
        if -(-size // batch) == steps:
            assert sorted(flat(drawn)) == list(range(size))
        else:
            assert set(counts) == set(range(size)) and max(counts.values()) - min(counts.values()) <= 1
            assert {len(part) for part in drawn} == {batch}
        assert all(len(part) == batch for part in drawn[:-1])
        seeds = flat(batches(loader, stream, "seed"))
        assert len(set(seeds)) == len(seeds)


@quickly
@given(sizes, some.integers(0, 9), sizes, sizes, some.integers(1, 12))
def test_an_epoch_of_fixed_length(labelled: int, unlabelled: int, batch_l: int, batch_u: int, steps: int) -> None:
    """As many full batches as asked for; no image is drawn again before all of its stream were."""
    loader = paired(labelled, unlabelled, batch_l, batch_u, steps=steps)
    loader.set_epoch(2)
    assert len(loader) == steps == sum(1 for _ in loader)
    for stream, size, batch in (("labelled", labelled, batch_l), ("unlabelled", unlabelled, batch_u)):
        drawn = batches(loader, stream)
        assert [len(part) for part in drawn] == ([batch] * steps if size else [])
        for begin in range(0, len(flat(drawn)), size or 1):
            shuffle = flat(drawn)[begin : begin + size]
            assert len(set(shuffle)) == len(shuffle)
        assert drawn == batches(loader, stream)


def test_short_epochs_of_fixed_length_reach_all_images() -> None:
    loader = paired(2, 12, steps=3)
    seen = set()
    for epoch in range(1, 9):
        loader.set_epoch(epoch)
        seen.update(flat(batches(loader, "unlabelled")))
    assert seen == set(range(12))


@pytest.mark.parametrize("steps", [0, -1, 2.5, "many"])
def test_no_number_of_steps(steps: Any) -> None:
    with pytest.raises(ProPLError, match=r"steps_per_epoch: .* is no number of steps; give 1 or more, or null"):
        paired(2, 4, steps=steps)


def test_every_unlabelled_image_once_an_epoch_in_a_new_order() -> None:
    loader = paired(2, 9, 2, 2)
    orders = []
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        orders.append(flat(batches(loader, "unlabelled")))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(9))
    assert orders[0] != orders[1]


def test_the_streams_are_shuffled_apart() -> None:
    loader = paired(9, 9, 9, 9)
    assert batches(loader, "labelled") != batches(loader, "unlabelled")


@quickly
@given(sizes, some.integers(1, 30), some.integers(1, 4), some.integers(0, 5))
def test_ranks_share_the_draws_of_one(size: int, length: int, ranks: int, epoch: int) -> None:
    def draws(rank: int, count: int) -> list[tuple[int, int]]:
        sampler = StreamSampler([None] * size, length, (7, 1), rank, count)
        sampler.epoch = epoch
        drawn = list(sampler)
        assert len(drawn) == len(sampler)
        return drawn

    assert sorted(draw for rank in range(ranks) for draw in draws(rank, ranks)) == sorted(draws(0, 1))


def pretend_ranks(monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int) -> None:
    monkeypatch.setattr(loaders, "rank_and_count", lambda: (rank, ranks))


@pytest.mark.parametrize("labelled,unlabelled", [(1, 9), (3, 5), (8, 4), (2, 7), (5, 0)])
def test_two_ranks_take_equally_many_steps(monkeypatch: pytest.MonkeyPatch, labelled: int, unlabelled: int) -> None:
    whole = paired(labelled, unlabelled, 4, 2)
    seen: dict[str, Counter] = {"labelled": Counter(), "unlabelled": Counter()}
    for rank in (0, 1):
        pretend_ranks(monkeypatch, rank, 2)
        part = paired(labelled, unlabelled, 4, 2)
        taken = list(part)
        assert len(taken) == len(part) == len(whole)
        for batch in taken:
            for stream, counts in seen.items():
                if (items := batch[stream]) is not None:
                    assert 1 <= len(items["index"]) <= (2 if stream == "labelled" else 1)
                    counts.update(items["index"].tolist())
    assert set(seen["labelled"]) == set(range(labelled)) and set(seen["unlabelled"]) == set(range(unlabelled))
    longer = seen["unlabelled"] if -(-unlabelled // 2) == len(whole) else seen["labelled"]
    assert sum(longer.values()) - len(longer) <= 1  # one more at most, so that the ranks stay in step


def test_a_batch_must_divide_among_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ranks(monkeypatch, 0, 2)
    with pytest.raises(ProPLError, match="3 images per step do not divide among 2 ranks"):
        paired(4, 4, 2, 3)


def test_no_labelled_image_is_refused() -> None:
    with pytest.raises(ProPLError, match="holds no labelled image; check datalist"):
        paired(0, 4)


def test_empty_data_set_is_no_error(datasets: tuple[DrawnDataset, DrawnDataset]) -> None:
    empty = DrawnDataset([], datasets[1].transform)
    taken = list(PairedLoader(datasets[0], empty, 2, 2, seed=0))
    assert len(taken) == -(-len(datasets[0]) // 2) > 1
    assert all(batch["unlabelled"] is None and batch["labelled"] is not None for batch in taken)


class Faulty(torch.utils.data.Dataset):
    """Raises a `ProPLError` itself, without MONAI's wrapping."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise ProPLError("a: b.png", "has 2 problems:\n  - one; two\n  - three: four", "mend; run again")


def error_of(data: Any, workers: int) -> BaseException:
    batches = iter(DataLoader(data, num_workers=workers))
    with pytest.raises(Exception) as caught:
        next(batches)
    if workers:
        batches._shutdown_workers()  # left to the garbage collector, it may wait for seconds
    return caught.value


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cause_survives_loader_processes(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    items = [{"image": str(tmp_path / "a.png")}]
    told = [
        find_cause(error_of(data, workers)) for data in (Dataset(items, Compose(transforms.load(("image",)))), Faulty())
    ]
    assert told[0] is not None and told[0].where == str(tmp_path / "a.png")
    assert "plain text" in told[0].fact and told[0].cure
    assert str(told[1]) == "a: b.png: has 2 problems:\n  - one; two\n  - three: four; mend; run again"


def test_other_errors_of_loader_processes_have_no_such_cause() -> None:
    error = error_of(Dataset([{"image": 0}], Compose([lambda item: 1 / item["image"]])), 1)
    assert find_cause(error) is None and "DataLoader worker" in str(error)
    assert find_cause(RuntimeError("propl_monai.errors.ProPLError: a: b; c")) is None  # someone only talks about one


def test_the_cause_survives_the_threads_that_fill_the_cache(tmp_path: Path) -> None:
    picture = tmp_path / "good.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    (tmp_path / "bad.png").touch()
    with pytest.raises(Exception) as caught:
        DrawnDataset([{"image": str(picture)}, {"image": str(tmp_path / "bad.png")}], transforms.training(SIZE, "half"))
    cause = find_cause(caught.value)
    assert cause is not None and "bad.png" in cause.where and "is empty" in cause.fact


def test_the_cache_takes_one_byte_per_pixel(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    item = {"image": str(tmp_path / "a.png"), "label": str(tmp_path / "a.png")}
    for keys in (("image", "label"), ("image",)):
        stream = DrawnDataset([{key: item[key] for key in keys}], transforms.training(SIZE, "half"))
        held = sum(value.nbytes for value in stream._cache[0].values() if isinstance(value, torch.Tensor))
        assert held == len(keys) * SIZE[0] * SIZE[1]


def test_other_batches_from_the_next_pass_on() -> None:
    loader = paired(5, 9, steps=3)
    loader.set_epoch(4)
    before = batches(loader, "labelled", "seed")
    loader.use(4, 0)
    assert [len(batch) for batch in batches(loader, "labelled")] == [4] * 3 and batches(loader, "unlabelled") == []
    assert len(loader) == 3 and loader.batch_sizes == (2, 2)
    loader.use(2, 2)
    assert batches(loader, "labelled", "seed") == before and len(flat(batches(loader, "unlabelled"))) == 6


def test_other_batches_keep_the_number_of_steps_of_one_pass() -> None:
    loader = paired(5, 9)
    loader.use(4, 0)
    assert [len(batch) for batch in batches(loader, "labelled")] == [4] * 5


def test_an_item_without_its_random_changes(datasets: tuple[DrawnDataset, DrawnDataset]) -> None:
    plain = DrawnDataset(datasets[1].data, transforms.training(SIZE, "half", "none"))
    still, again = datasets[1].still(0), datasets[1].still(0)
    assert equal(still, again) and torch.equal(still["image"], plain[0]["image"])
    assert torch.equal(plain.still(0)["image"], plain[0]["image"])
    assert not torch.equal(datasets[1][0, 3]["image"], still["image"])


def test_what_is_added_to_an_item_passes_its_transform(datasets: tuple[DrawnDataset, DrawnDataset]) -> None:
    data = DrawnDataset(datasets[1].data[:2], datasets[1].transform)
    data.add(1, {"certainty": torch.full((1, *SIZE), 255, dtype=torch.uint8), "picture_weight": torch.tensor(0.5)})
    assert "certainty" not in data[0, 1] and data[1, 1]["picture_weight"].item() == 0.5
    assert data[1, 1]["certainty"].max() == 255 and datasets[1][1, 1].keys() == data[0, 1].keys()


def test_balanced_tasks_are_drawn_equally_often() -> None:
    kinds = ["a"] * 9 + ["b"] * 2 + ["c"]
    drawn = [index for index, _ in StreamSampler(kinds, 27, (0,))]
    assert Counter(kinds[index] for index in drawn) == {"a": 9, "b": 9, "c": 9}
    assert [kinds[index] for index in drawn] == ["a", "b", "c"] * 9
    assert set(drawn) == set(range(12))  # a shuffle holds every item once
