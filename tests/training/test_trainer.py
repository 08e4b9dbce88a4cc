"""The engine, with a method of one parameter: what it hands over, what it skips, and what plugs into it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.handlers import CheckpointSaver, LrScheduleHandler, StatsHandler
from torch import Tensor, nn

from propl_monai.data.loaders import PairedLoader
from propl_monai.errors import ProPLError
from propl_monai.training import trainer as trainer_module
from propl_monai.training.methods.base import Method
from propl_monai.training.trainer import SemiSupervisedTrainer


class Items(torch.utils.data.Dataset):
    """Constant pictures: image i is i / 10, its label 1."""

    def __init__(self, size: int, labelled: bool) -> None:
        self.size, self.labelled = size, labelled

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        item: dict[str, Any] = {"image": torch.full((1, 2, 2), index[0] / 10), "task": "left atrium"}
        item["case_id"] = f"{'labelled' if self.labelled else 'unlabelled'}{index[0]}"
        if self.labelled:
            item["label"] = torch.ones(1, 2, 2)
        return item


class Loader(PairedLoader):
    """Pictures of the steps in `poisoned` (counted over all epochs from 1) hold a NaN."""

    def __init__(self, labelled: int = 4, unlabelled: int = 6, poisoned: tuple[int, ...] = ()) -> None:
        super().__init__(Items(labelled, True), Items(unlabelled, False), 2, 2, 0)  # type: ignore[arg-type]
        self.poisoned, self.step, self.epochs = poisoned, 0, []  # type: ignore[var-annotated]

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[dict[str, dict | None]]:
        for batch in super().__iter__():
            self.step += 1
            if self.step in self.poisoned:
                (batch["labelled"] or {})["image"][0, 0, 0, 0] = float("nan")
            yield batch


class Toy(Method):
    """One convolution and one BatchNorm, and a diary."""

    network: Any

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))  # type: ignore[arg-type]
        self.weights: list[float] = []
        self.progress: list[float] = []
        self.random: list[float] = []
        self.dtypes: set[torch.dtype] = set()

    def step(self, labelled: dict | None, unlabelled: dict | None, progress: float) -> dict[str, Tensor]:
        assert self.training
        self.progress.append(progress)
        self.random.append(torch.rand(()).item())
        batches = [batch for batch in (labelled, unlabelled) if batch]
        logits = [self.network(batch["image"]) for batch in batches]
        self.dtypes.add(self.network[0](batches[0]["image"]).dtype)
        supervised = (logits[0] - batches[0]["label"]).square().mean()
        loss = supervised + sum(part.square().mean() for part in logits[1:])
        return {"loss": loss, "supervised": supervised.detach(), "logits": logits[0].detach()}

    def after_step(self) -> None:
        self.weights.append(next(self.network.parameters()).item())


def build(loader: PairedLoader, method: Toy | None = None, epochs: int = 2, **options: Any) -> SemiSupervisedTrainer:
    method = method or Toy()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    return SemiSupervisedTrainer("cpu", epochs, loader, method, optimizer, **options)


def finite(module: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())


def test_steps_progress_and_epochs() -> None:
    loader, method = Loader(), Toy()
    before = [parameter.clone() for parameter in method.parameters()]
    trainer = build(loader, method)
    trainer.run()
    assert trainer.state.iteration == 6 and trainer.bad_steps == 0
    assert method.progress == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert loader.epochs == [1, 2]
    assert any(not torch.equal(old, new) for old, new in zip(before, method.parameters(), strict=True))


def test_output_of_a_step() -> None:
    trainer = build(Loader())
    seen: list[dict[str, Any]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    trainer.run()
    assert set(seen[0]) == {"loss", "supervised", "image", "label", "pred"}
    assert type(seen[0]["loss"]) is float and seen[0]["loss"] >= seen[0]["supervised"] > 0
    assert seen[0]["image"].shape == seen[0]["label"].shape == seen[0]["pred"].shape == (2, 1, 2, 2)
    assert not seen[0]["pred"].requires_grad


def test_one_stream_alone() -> None:
    trainer = build(Loader(3, 0))
    trainer.run()
    assert trainer.state.iteration == 4 and finite(trainer.method)


def test_random_numbers_depend_on_seed_and_epoch_alone() -> None:
    def diary(seed: int) -> list[float]:
        method = Toy()
        torch.manual_seed(torch.seed() % 1000)
        build(Loader(), method, seed=seed).run()
        return method.random

    first = diary(0)
    assert first == diary(0) and first != diary(1) and len(set(first)) == 6


def test_a_bad_step_is_skipped_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    method = Toy()
    trainer = build(Loader(poisoned=(2, 5)), method)
    states: list[dict[str, Tensor]] = []

    def keep(engine: Any) -> None:
        states.append({key: value.clone() for key, value in method.state_dict().items()})

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    trainer.run()
    assert trainer.bad_steps == 2 and trainer.state.iteration == 6
    assert finite(method)
    # Nothing is left of a skipped step: not in the parameters, nor in the running statistics of BatchNorm.
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[1][key], states[2][key]) for key in states[1])
    told = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(told) == 2 and "step 2 skipped" in told[0] and "labelled" in told[0]


def test_the_hook_follows_every_successful_step_and_no_other() -> None:
    method = Toy()
    trainer = build(Loader(poisoned=(2, 5)), method)
    seen: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(next(method.network.parameters()).item()))
    trainer.run()
    # It sees the weights that the step has made; steps 2 and 5 were skipped.
    assert method.weights == [seen[number] for number in (0, 2, 3, 5)]
    assert len(set(method.weights)) == 4


def test_an_infinite_gradient_of_a_finite_loss_is_skipped() -> None:
    class Steep(Toy):
        def step(self, labelled: Any, unlabelled: Any, progress: float) -> dict[str, Tensor]:
            result = super().step(labelled, unlabelled, progress)
            weight = next(self.network.parameters())
            # The square root of 0: its value is 0, its slope is infinite.
            result["loss"] = result["loss"] + (weight - weight.detach()).sum().abs().sqrt()
            return result

    method = Steep()
    trainer = build(Loader(), method)
    trainer.run()
    assert trainer.bad_steps == 6 and finite(method)


def test_too_many_bad_steps_in_a_row_stop_with_the_cases() -> None:
    trainer = build(Loader(poisoned=tuple(range(3, 100))), epochs=20)
    with pytest.raises(ProPLError) as caught:
        trainer.run()
    assert trainer.bad_steps == trainer_module.LARGEST_RUN_OF_BAD_STEPS + 1 == 21
    assert caught.value.where == "step 23" and "21 steps in a row" in caught.value.fact
    assert (
        "'labelled" in caught.value.fact and "'unlabelled" in caught.value.fact and "look at these" in caught.value.cure
    )
    assert finite(trainer.method)


def test_bad_steps_apart_do_not_stop() -> None:
    trainer = build(Loader(poisoned=tuple(range(1, 120, 2))), epochs=20)
    trainer.run()
    assert trainer.bad_steps == 30


@pytest.mark.parametrize("precision,dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precisions_of_a_cpu(precision: str, dtype: torch.dtype) -> None:
    method = Toy()
    trainer = build(Loader(), method, precision=precision)
    trainer.run()
    assert method.dtypes == {dtype} and finite(method)
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())


def test_precisions_that_are_refused() -> None:
    with pytest.raises(ProPLError, match="precision: fp16 needs CUDA; use bf16 or fp32"):
        build(Loader(), precision="fp16")
    with pytest.raises(ProPLError, match="unknown precision 'fp23'; did you mean 'fp32'"):
        build(Loader(), precision="fp23")


def test_monais_handlers_plug_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = Toy()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    handlers = [
        StatsHandler(name="stats", tag_name="loss", output_transform=lambda output: output["loss"]),
        CheckpointSaver(str(tmp_path), {"network": method.network}, save_final=True),
        LrScheduleHandler(scheduler, print_lr=False, epoch_level=True),
    ]
    SemiSupervisedTrainer("cpu", 3, Loader(), method, optimizer, train_handlers=handlers).run()
    told = capsys.readouterr().out
    assert told.count("loss: ") == 9 and "Epoch: 3/3, Iter: 3/3 -- loss: " in told
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    (file,) = tmp_path.iterdir()
    saved = torch.load(file, weights_only=True)
    assert torch.equal(saved.get("network", saved)["0.weight"], next(method.network.parameters()))


def test_losses_are_plain_numbers_even_in_bf16() -> None:
    trainer = build(Loader(), precision="bf16")
    trainer.run()
    assert isinstance(trainer.state.output["loss"], float) and math.isfinite(trainer.state.output["loss"])
