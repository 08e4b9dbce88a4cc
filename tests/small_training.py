"""A whole training in a second: real components, pictures of 32 × 32, an encoder of eighty thousand parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.handlers import LrScheduleHandler, ValidationHandler

from propl_monai.data import transforms
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.datasets.cohort import TrainingCohort
from propl_monai.model.network import ProPL
from propl_monai.training.checkpoints import KeepCheckpoints
from propl_monai.training.methods.base import Method
from propl_monai.training.methods.propl import ProPLMethod
from propl_monai.training.records import RecordRun, TrainingLog
from propl_monai.training.trainer import SemiSupervisedTrainer
from propl_monai.training.validation import EveryDecoder, ValidationDice

ENCODER = "tf_efficientnet_lite0"
TINY_ENCODER = "test_efficientnet"  # of the same family, a thirtieth of its size: trainings save it every epoch
TASKS = ("left atrium", "left ventricle", "myocardium")
PROPL = partial(ProPLMethod, supervise_pd=True)


@dataclass
class Training:
    """A small training, wired as `bundle/configs/train.json` wires a large one."""

    trainer: Any
    evaluator: Any
    network: Any
    method: Any
    optimizer: Any
    cohort: Any
    output_dir: Path
    model_dir: Path

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without the only figure that no two runs share."""
        lines = [json.loads(line) for line in (self.output_dir / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def build_training(
    data: Path,
    folder: Path,
    epochs: int = 3,
    seed: int = 0,
    resume: bool = False,
    num_workers: int = 0,
    labelled_fraction: str = "1/16",
    use_unlabelled: bool = True,
    extra_handlers: tuple[Any, ...] = (),
    make_method: Callable[[ProPL], Method] = PROPL,
    tasks: Sequence[str] = TASKS,
    steps: int | None = None,
) -> Training:
    """Wire a training on the phantoms in `data`: 32 px, batches of 2. `extra_handlers` come after the package's own."""
    output_dir, model_dir = folder / "run", folder / "models"
    output_dir.mkdir(parents=True, exist_ok=True)
    cohort = TrainingCohort(str(data), None, str(output_dir), tasks, labelled_fraction, use_unlabelled)
    torch.manual_seed(seed)
    network = ProPL(TINY_ENCODER)
    method = make_method(network)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
    size = (32, 32)
    loader = PairedLoader(
        DrawnDataset(cohort.labelled, transforms.training(size, "half", photometric=0.5)),
        DrawnDataset(cohort.unlabelled, transforms.training(size, "half", strong_view=0.5)),
        *(2, 2, seed, num_workers, steps),
    )
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, epochs * len(loader), power=0.9)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(
            CacheDataset(cohort.validation, transforms.validation(size, "half"), progress=False), batch_size=3
        ),
        network=method.predictor,
        inferer=EveryDecoder(),
        prepare_batch=PrepareBatchExtraInput(extra_keys={"task": "task"}),
        key_val_metric={"mdice": ValidationDice(method.decoders if cohort.unlabelled else ("sd",))},
    )
    options = {
        "preset": "test",
        "seed": seed,
        "labelled_fraction": labelled_fraction,
        "epochs": epochs,
        "resume": resume,
    }
    trainer = SemiSupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        method=method,
        optimizer=optimizer,
        seed=seed,
        train_handlers=[
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ValidationHandler(interval=1, validator=evaluator, epoch_level=True),
            KeepCheckpoints(scheduler, str(output_dir), str(model_dir), evaluator, options=options, cohort=cohort),
            TrainingLog(seconds=0),
            RecordRun(),
            *extra_handlers,
        ],
    )
    return Training(trainer, evaluator, network, method, optimizer, cohort, output_dir, model_dir)


class Killed(BaseException):
    """Stands for a kill: no handler of the package expects it."""


class KillAt:
    """Stops a training in the middle of a step's work."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self.kill)

    def kill(self, engine: Engine) -> None:
        raise Killed
