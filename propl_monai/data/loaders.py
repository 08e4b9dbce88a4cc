"""The labelled and the unlabelled stream, in step; every random draw is a function of (seed, epoch, position)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandomizableTrait, Transform
from torch.utils.data import Sampler

from propl_monai.common.options import switch
from propl_monai.common.ranks import rank_and_count
from propl_monai.data.reseeding import Reseeder
from propl_monai.errors import ProPLError

LONGEST_WAIT = 600  # seconds for a batch of a loader process, which hangs then; network disks stall for minutes


class DrawnDataset(CacheDataset):
    """A `CacheDataset` whose random transforms can be seeded item by item.

    The deterministic part of the transform is computed once; the rest is fresh at every pass. An index may be a pair
    (index, seed): then the view depends on nothing else, not on the number of workers or on what was drawn before.

    Args:
        data: items, dicts with `image`, `task` and, where labelled, `label`; may be empty.
        transform: a `Compose`.
        progress: show a bar while the cache fills.
    """

    def __init__(self, data: Sequence[dict], transform: Compose, progress: bool = False) -> None:
        super().__init__(data=list(data), transform=transform, progress=progress, num_workers=2, copy_cache=False)
        self._reseed = Reseeder(self.transform)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            index, seed = index
            self._reseed(seed)
        return self._transform(int(index))

    def still(self, index: int) -> dict:
        """An item without its random changes."""
        item, steps = self._cache[index], self.transform
        begin = steps.get_index_of_first(lambda step: _is_random(step) or not isinstance(step, Transform))
        for step in [] if begin is None else steps.transforms[begin:]:
            item = item if _is_random(step) else step(item)
        return item

    def add(self, index: int, more: Mapping[str, Any]) -> None:
        """Keep more with an item, or replace it: what the random part of the transform begins with."""
        self._cache[index] = {**self._cache[index], **more}


def _is_random(step: Any) -> bool:
    return isinstance(step, RandomizableTrait)


class StreamSampler(Sampler[tuple[int, int]]):
    """Endless shuffles of a data set, cut to the length of an epoch; yields (index, seed of the view).

    Args:
        kinds: one entry per item of the data set. Items of different kinds are drawn equally often, each kind from
            shuffles of its own; one kind for all items makes plain shuffles of the data set.
        length: draws per epoch, over all ranks.
        seed: of the run, with a number of its own for each stream.
        rank, ranks: this process takes every `ranks`-th draw.
    """

    def __init__(
        self, kinds: Sequence[Hashable], length: int, seed: Sequence[int], rank: int = 0, ranks: int = 1
    ) -> None:
        self.length, self.seed, self.rank, self.ranks = length, tuple(seed), rank, ranks
        self.members = [np.flatnonzero([each == kind for each in kinds]) for kind in dict.fromkeys(kinds)]
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng((*self.seed, self.epoch))
        rounds = -(-self.length // len(self.members))
        columns = [_shuffles(members, rounds, generator) for members in self.members]
        order = np.stack(columns, 1).reshape(-1)[: self.length]
        seeds = generator.integers(2**31, size=self.length)
        for position in range(self.rank, self.length, self.ranks):
            yield int(order[position]), int(seeds[position])

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.ranks))


def _shuffles(members: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    shuffles = -(-length // len(members))
    return np.concatenate([generator.permutation(members) for _ in range(shuffles)])[:length]


class PairedLoader:
    """Batches of both streams, {"labelled": dict or None, "unlabelled": dict or None}.

    An epoch is one pass over the longer stream, in batches (that is the unlabelled one, the paper's epoch, at the
    fractions of the paper); the shorter one is reshuffled as often as needed, each time as a fresh view.
    The last batch of the longer stream may be short. A number of steps instead makes every epoch as long, in full
    batches: then an epoch may hold an image several times, or not at all. Under `torch.distributed` each rank loads its
    share.

    Args:
        labelled: data set, not empty.
        unlabelled: data set; may be empty.
        labelled_batch_size, unlabelled_batch_size: images per step, over all ranks.
        seed: of the run.
        num_workers: loader processes of each stream.
        steps: of an epoch, so that runs of different methods and batches train equally long; None for one pass.
        balance_tasks: draw every task equally often, in turn, instead of every image equally often. An epoch has the same
            number of draws, so it holds the images of a small task several times, and not all of a large one.
    """

    def __init__(
        self,
        labelled: DrawnDataset,
        unlabelled: DrawnDataset,
        labelled_batch_size: int,
        unlabelled_batch_size: int,
        seed: int,
        num_workers: int = 0,
        steps: int | None = None,
        balance_tasks: bool = False,
    ) -> None:
        if not len(labelled):
            raise ProPLError("training set", "holds no labelled image", "check datalist, tasks and labelled_fraction")
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise ProPLError("steps_per_epoch", f"{steps!r} is no number of steps", "give 1 or more, or null")
        self.data = {"labelled": labelled, "unlabelled": unlabelled}
        self.batch_sizes = (labelled_batch_size, unlabelled_batch_size)
        one_pass = max(-(-len(labelled) // labelled_batch_size), -(-len(unlabelled) // unlabelled_batch_size))
        self.length, self.num_workers, self.seed = steps or one_pass, num_workers, seed
        self.fixed, self.balance_tasks = steps is not None, switch("balance_tasks", balance_tasks)
        self.epoch = 0
        self.use(*self.batch_sizes)

    def use(self, labelled: int, unlabelled: int) -> None:
        """Draw other batches from the next pass on, of these numbers of images; an epoch keeps its number of steps.

        Args:
            labelled, unlabelled: images per step, over all ranks; 0 leaves a stream out.
        """
        self.streams: dict[str, DataLoader] = {}
        for number, (name, batch) in enumerate((("labelled", labelled), ("unlabelled", unlabelled))):
            if batch and len(self.data[name]):
                self.streams[name] = self._stream(self.data[name], batch, number)

    def _stream(self, data: DrawnDataset, batch: int, number: int) -> DataLoader:
        rank, ranks = rank_and_count()
        if batch % ranks:
            fact = f"{batch} images per step do not divide among {ranks} ranks"
            raise ProPLError("batch size", fact, "change one of them")
        once = not self.fixed and -(-len(data) // batch) == self.length
        draws = len(data) if once else self.length * batch
        draws += -draws % ranks  # every rank takes as many steps, or gradients would wait for ever
        kinds = [item.get("task") for item in data.data] if self.balance_tasks else [None] * len(data)
        sampler = StreamSampler(kinds, draws, (self.seed, number), rank, ranks)
        sampler.epoch = self.epoch
        workers: dict[str, Any] = {"num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
        workers["timeout"] = LONGEST_WAIT if self.num_workers else 0
        return DataLoader(data, batch_size=batch // ranks, sampler=sampler, **workers)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of `epoch`."""
        self.epoch = epoch
        for stream in self.streams.values():
            stream.sampler.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict[str, dict | None]]:
        iterators = {name: iter(stream) for name, stream in self.streams.items()}
        for _ in range(self.length):
            yield {"labelled": None, "unlabelled": None, **{name: next(each) for name, each in iterators.items()}}
