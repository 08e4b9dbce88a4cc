"""Training in cycles: the first learns from labels alone, each later one also from pseudo-labels made at its beginning."""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_right
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LambdaLR

from propl_monai.common.files import file_sha256
from propl_monai.common.ranks import gather_in_turn, holds_everywhere, is_writer, rank_and_count, unwrap
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.pseudo_labels import PseudoLabels, levels, path_of, read, read_the_same, write

logger = logging.getLogger(__name__)


def cycle_ends(epochs: int, rounds: int) -> list[int]:
    """The last epoch of each of the rounds + 1 cycles, which are as long as each other, or differ by one epoch.

    Args:
        epochs: of the whole training.
        rounds: of pseudo-labels; 0 trains on labels alone.
    """
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 0:
        raise ProPLError("rounds", f"{rounds!r} is no number of rounds", "give 0 or more")
    if epochs <= rounds:
        fact = f"{epochs} epochs are too few for {rounds} rounds, which are {rounds + 1} cycles of an epoch at least"
        raise ProPLError("rounds", fact, "give more epochs, or fewer rounds")
    return [(number + 1) * epochs // (rounds + 1) for number in range(rounds + 1)]


class DecayInRounds(LambdaLR):
    """A polynomial decay from the learning rate to 0 over each cycle.

    Args:
        optimizer: its learning rate is where each cycle begins.
        epochs: of the whole training.
        steps: of an epoch.
        rounds: see `cycle_ends`.
        power: of the polynomial.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, epochs: int, steps: int, rounds: int = 0, power: float = 0.9
    ) -> None:
        ends = [end * steps for end in cycle_ends(epochs, rounds)]

        def share(step: int) -> float:
            if step >= ends[-1]:
                return 0.0
            cycle = bisect_right(ends, step)
            begin = ends[cycle - 1] if cycle else 0
            return (1 - (step - begin) / (ends[cycle] - begin)) ** power

        super().__init__(optimizer, share)


class Rounds:
    """Turns a training into cycles. Attach it after `KeepCheckpoints`, and give the trainer `DecayInRounds`.

    Cycle 0 sees labelled pictures alone, as many a step as the later ones see of both kinds. Each later cycle goes on from
    the last weights, with a fresh optimizer. Where the method's teacher is "offline", the pseudo-labels of all unlabelled
    pictures are made at its beginning, by the network as it then is, in eval mode, and kept in
    `<output_dir>/pseudo_labels/round-<number>.safetensors`, where a resumed run finds them. Ranks share this work; each
    picture goes through the network alone, so that their number changes nothing.

    Without unlabelled pictures, and with a method that has no such teacher, a cycle only begins with a fresh optimizer.

    Args:
        rounds: of pseudo-labels, so that there are rounds + 1 cycles of equally many epochs.
    """

    def __init__(self, rounds: int = 1) -> None:
        self.rounds, self.cycle = rounds, -1

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; a method with the teacher "offline" has `teach`, `chosen` and `lesson_options`."""
        self.method: Any = unwrap(engine.method)
        self.loader: PairedLoader = engine.data_loader
        self.folder: Path = engine.keeper.folder
        self.ends = cycle_ends(engine.state.max_epochs, self.rounds)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)

    def _begin_epoch(self, engine: Engine) -> None:
        cycle = bisect_right(self.ends, engine.state.epoch - 1)
        if cycle == self.cycle:
            return
        self.cycle, anew = cycle, engine.state.epoch - 1 in (0, *self.ends)
        if anew:
            engine.optimizer.state.clear()
        labelled, unlabelled = self.loader.batch_sizes
        pictures = self.loader.data["unlabelled"]
        if not len(pictures):
            return
        if cycle == 0:
            self.loader.use(labelled + unlabelled, 0)
            return
        self.loader.use(labelled, unlabelled)
        if getattr(self.method, "teacher", None) == "offline":
            labels = self._made(engine, pictures) if anew else self._found(pictures)
            for index in range(len(pictures)):
                pictures.add(index, labels.of(index))

    def _found(self, pictures: DrawnDataset) -> PseudoLabels:
        path, sha256 = path_of(self.folder, self.cycle), bytes(self.method.pseudo_labels_sha256.tolist())
        return read_the_same(path, sha256, _case_ids(pictures))

    def _made(self, engine: Engine, pictures: DrawnDataset) -> PseudoLabels:
        """Made now, or before a stop that came before the first epoch of the cycle had ended."""
        path, about, labels = path_of(self.folder, self.cycle), self._about(pictures), None
        if path.is_file():
            found, labels = read(path)
            labels = labels if found == about else None
        if not holds_everywhere(labels is not None, engine.state.device):
            labels = self._make(engine, pictures)
            if is_writer():
                write(path, labels, about)
        assert labels is not None
        if is_writer():  # the others get it with the buffers of rank 0
            digest = torch.tensor(list(bytes.fromhex(file_sha256(path))), dtype=torch.uint8)
            self.method.pseudo_labels_sha256.copy_(digest)
        return labels

    def _make(self, engine: Engine, pictures: DrawnDataset) -> PseudoLabels:
        logger.info(
            "round %d: pseudo-labels of %d pictures from %s", self.cycle, len(pictures), ", ".join(self.method.views)
        )
        mine, (rank, ranks) = [], rank_and_count()
        for index in range(rank, len(pictures), ranks):
            item = pictures.still(index)
            names = [item["task"]] if "task" in item else None
            lesson, variance = self.method.teach(item["image"][None].to(engine.state.device), names)
            maps = levels(lesson.target[0]), levels(lesson.certainty[0])
            mine.append((*maps, lesson.picture_weight[0].float().cpu(), variance.item()))
        *columns, variances = zip(*gather_in_turn(mine), strict=True)
        labels = PseudoLabels(*(torch.stack(column) for column in columns))
        labels = self.method.chosen(labels, [item.get("task") for item in pictures.data], self.cycle)
        mean = sum(variances) / len(variances)
        logger.info("round %d: variance %.1e, picture weight %.3f", self.cycle, mean, labels.picture_weight.mean())
        return labels

    def _about(self, pictures: DrawnDataset) -> dict[str, Any]:
        about = {"round": self.cycle, **self.method.lesson_options, "case_ids": _case_ids(pictures)}
        return about | {"teacher_sha256": _sha256(cast(Segmenter, self.method.network))}


def _case_ids(pictures: DrawnDataset) -> list[str]:
    return [str(item.get("case_id", item["image"])) for item in pictures.data]


def _sha256(network: Segmenter) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
