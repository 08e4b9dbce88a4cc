"""What many tests build: small networks, predictors and whole trainings; and where the project is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.handlers import LrScheduleHandler, ValidationHandler

from propl_monai.data import transforms
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.datasets.cohort import TrainingCohort
from propl_monai.inference.predictor import Predictor
from propl_monai.model.network import ProPL
from propl_monai.model.networks.registry import NETWORKS
from propl_monai.model.weights import save_weights
from propl_monai.training.checkpoints import KeepCheckpoints
from propl_monai.training.methods.base import Method
from propl_monai.training.methods.propl import ProPLMethod
from propl_monai.training.records import RecordRun, TrainingLog
from propl_monai.training.rounds import DecayInRounds, Rounds
from propl_monai.training.trainer import SemiSupervisedTrainer
from propl_monai.training.validation import EveryDecoder, ValidationDice

ROOT = Path(__file__).resolve().parents[1]


ENCODER = "tf_efficientnet_lite0"
TINY_ENCODER = "test_efficientnet"  # of the same family, a thirtieth of its size: trainings save it every epoch
TASKS = ("left atrium", "left ventricle", "myocardium")
# Of networks with a backbone of their own; all others take TINY_ENCODER.
STAGES = {"filters": (4, 4, 8, 8, 8, 8), "prompt_grid": (2, 3)}
TINY_OPTIONS: dict[str, dict[str, Any]] = {
    "uniseg": STAGES,
    "meduniseg": STAGES | {"prompt_channels": 5},
    "meduniseg_star": STAGES | {"prompt_channels": 5, "rank": 2},
}
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


def tiny_network(name: str, **options: Any) -> Any:
    """A network of the registry, small, with random weights."""
    made: Any = NETWORKS[name]
    return made(**({**TINY_OPTIONS.get(name, {"encoder": TINY_ENCODER})} | options))


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
    make_method: Callable[[Any], Method] = PROPL,
    network_name: str = "propl",
    tasks: Sequence[str] = TASKS,
    steps: int | None = None,
    rounds: int | None = None,
    strong_views: int = 1,
    precision: str = "fp32",
    device: str = "cpu",
) -> Training:
    """Wire a training on the phantoms in `data`: 32 px, batches of 2. `extra_handlers` come after the package's own.

    With `rounds`, as `propl_views.json` does.
    """
    output_dir, model_dir = folder / "run", folder / "models"
    output_dir.mkdir(parents=True, exist_ok=True)
    cohort = TrainingCohort(str(data), None, str(output_dir), tasks, labelled_fraction, use_unlabelled)
    torch.manual_seed(seed)
    network = tiny_network(network_name).to(device)
    method = make_method(network).to(device)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
    size = (32, 32)
    loader = PairedLoader(
        DrawnDataset(cohort.labelled, transforms.training(size, "half", photometric=0.5)),
        DrawnDataset(cohort.unlabelled, transforms.training(size, "half", strong_view=0.5, strong_views=strong_views)),
        *(2, 2, seed, num_workers, steps),
    )
    scheduler: Any = torch.optim.lr_scheduler.PolynomialLR(optimizer, epochs * len(loader), power=0.9)
    if rounds is not None:
        scheduler = DecayInRounds(optimizer, epochs, len(loader), rounds)
    evaluator = SupervisedEvaluator(
        device=torch.device(device),
        val_data_loader=DataLoader(
            CacheDataset(cohort.validation, transforms.validation(size, "half"), progress=False), batch_size=3
        ),
        network=method.predictor,
        inferer=EveryDecoder(),
        prepare_batch=PrepareBatchExtraInput(extra_keys={"task": "task"}),
        key_val_metric={"mdice": ValidationDice(method.decoders if cohort.unlabelled else method.decoders[:1])},
    )
    options = {
        "preset": "test",
        "seed": seed,
        "labelled_fraction": labelled_fraction,
        "epochs": epochs,
        "resume": resume,
    }
    trainer = SemiSupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        method=method,
        optimizer=optimizer,
        seed=seed,
        precision=precision,
        train_handlers=[
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ValidationHandler(interval=1, validator=evaluator, epoch_level=True),
            KeepCheckpoints(scheduler, str(output_dir), str(model_dir), evaluator, options=options, cohort=cohort),
            TrainingLog(seconds=0),
            RecordRun(),
            *([] if rounds is None else [Rounds(rounds)]),
            *extra_handlers,
        ],
    )
    return Training(trainer, evaluator, network, method, optimizer, cohort, output_dir, model_dir)


def same_bits(first: Any, second: Any) -> bool:
    """Whether two nested states are the same to the bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_bits(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same_bits, first, second))
    return bool(first == second)


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


ABOUT: dict[str, Any] = {"preset": "test", "spatial_size": [32, 32], "normalisation": "half"}


def speckle(height: int, width: int, seed: int = 0, colour: bool = False) -> np.ndarray:
    """A picture of coarse random grains, uint8."""
    random = np.random.default_rng(seed)
    grains = random.integers(0, 256, (height // 6 + 1, width // 6 + 1, *([3] if colour else [])))
    return grains.repeat(6, 0).repeat(6, 1)[:height, :width].astype(np.uint8)


def small_network() -> ProPL:
    """Random weights in eval mode, each decoder shifted so that about half of a picture is target."""
    torch.manual_seed(0)
    network = ProPL(TINY_ENCODER).eval()
    network.choose_decoder("pd")
    sample = torch.from_numpy(speckle(64, 64)).float()[None, None] / 127.5 - 1
    with torch.no_grad():
        for name, decoder in (("sd", network.decoder_sd), ("pd", network.decoder_pd)):
            (bias,) = [value for key, value in decoder.out.named_parameters() if key.endswith("bias")]
            bias -= network(sample, task="left atrium", decoder=name).median()
    return network


def write_small_bundle(folder: Path, **about: Any) -> Path:
    """`models/` and `configs/metadata.json`, as in a bundle; `about` changes the header of the weights."""
    save_weights(small_network(), folder / "models", {**ABOUT, **about})
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "small", "version": "0.0.1"}))
    return folder


def small_predictor(**options: Any) -> Predictor:
    """Without any file."""
    given = {"device": "cpu", "weights_sha256": "0" * 64, **options}
    return Predictor(small_network(), (32, 32), "half", **given)
