"""What many tests share: one small phantom data set, a network, the schema of run.json, and a whole small training.

Imports of torch stand inside the fixtures, so that tests of torch-free modules start at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import propl_monai

ENCODER = "tf_efficientnet_lite0"
TINY_ENCODER = "test_efficientnet"  # of the same family, a thirtieth of its size: trainings save it every epoch
TASKS = ("left atrium", "left ventricle", "myocardium")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the plain layout: eight tasks, eight pictures of 64 × 64 each. Read it, do not change it."""
    from propl_monai.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, cases_per_task=8, size=64)
    return folder


@pytest.fixture(scope="session")
def network() -> Any:
    """A `ProPL` with random weights, in eval mode. Read it, do not change it."""
    import torch

    from propl_monai.network import ProPL

    torch.manual_seed(0)
    return ProPL(ENCODER, default_task=TASKS[0]).eval()


@pytest.fixture
def few_threads() -> Iterator[None]:
    """One thread for torch: pictures of 32 × 32 only lose by more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def check_run_json() -> Callable[[Path], dict[str, Any]]:
    """Reads a run.json, checks it against the schema, and returns its content."""
    schema = json.loads((Path(propl_monai.__file__).parent / "data" / "run.schema.json").read_text())

    def check(path: Path) -> dict[str, Any]:
        content = json.loads(path.read_text(), parse_constant=_refuse)
        jsonschema.validate(content, schema)
        return content

    return check


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@dataclass
class Training:
    """A small training, wired as `bundle/configs/train.json` wires a large one."""

    trainer: Any
    evaluator: Any
    network: Any
    optimizer: Any
    cohort: Any
    output_dir: Path
    model_dir: Path

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without the only figure that no two runs share."""
        lines = [json.loads(line) for line in (self.output_dir / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def make_training(phantoms: Path, few_threads: None) -> Callable[..., Training]:
    """Builds a `Training` on the phantoms: 32 px, batches of 2, three epochs."""

    def make(folder: Path, **options: Any) -> Training:
        return build_training(phantoms, folder, **options)

    return make


def build_training(
    data: Path,
    folder: Path,
    epochs: int = 3,
    seed: int = 0,
    resume: bool = False,
    num_workers: int = 0,
    labelled_fraction: str = "1/16",
    use_unlabelled: bool = True,
    learning_rate: float = 0.01,
    extra_handlers: tuple[Any, ...] = (),
    first_handlers: tuple[Any, ...] = (),
) -> Training:
    """See `make_training`; `first_handlers` see an event before the package's own, `extra_handlers` after them."""
    import torch
    from monai.data import CacheDataset, DataLoader
    from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
    from monai.handlers import LrScheduleHandler, ValidationHandler

    from propl_monai import transforms
    from propl_monai.cohort import TrainingCohort
    from propl_monai.handlers import KeepCheckpoints, RecordRun, TrainingLog
    from propl_monai.loaders import DrawnDataset, PairedLoader
    from propl_monai.methods.propl import ProPLMethod
    from propl_monai.network import DECODERS, ProPL
    from propl_monai.trainer import SemiSupervisedTrainer
    from propl_monai.validation import EveryDecoder, ValidationDice

    output_dir, model_dir = folder / "run", folder / "models"
    output_dir.mkdir(parents=True, exist_ok=True)
    cohort = TrainingCohort(str(data), None, str(output_dir), TASKS, labelled_fraction, use_unlabelled)
    torch.manual_seed(seed)
    network = ProPL(TINY_ENCODER)
    method = ProPLMethod(network, supervise_pd=True)
    optimizer = torch.optim.SGD(method.parameters(), lr=learning_rate, momentum=0.9)
    size = (32, 32)
    loader = PairedLoader(
        DrawnDataset(cohort.labelled, transforms.training(size, "half", photometric=0.5)),
        DrawnDataset(cohort.unlabelled, transforms.training(size, "half", strong_view=0.5)),
        *(2, 2, seed, num_workers),
    )
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, epochs * len(loader), power=0.9)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(
            CacheDataset(cohort.validation, transforms.validation(size, "half"), progress=False), batch_size=3
        ),
        network=network,
        inferer=EveryDecoder(),
        prepare_batch=PrepareBatchExtraInput(extra_keys={"task": "task"}),
        key_val_metric={"mdice": ValidationDice(DECODERS if cohort.unlabelled else ("sd",))},
    )
    same = {"seed": seed, "datalist_sha256": cohort.sha256, "labelled_fraction": labelled_fraction}
    trainer = SemiSupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        method=method,
        optimizer=optimizer,
        seed=seed,
        train_handlers=[
            *first_handlers,
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ValidationHandler(interval=1, validator=evaluator, epoch_level=True),
            KeepCheckpoints(
                *(network, optimizer, scheduler, str(output_dir), str(model_dir), evaluator, resume),
                about={"preset": "test"},
                fingerprint=same,
            ),
            TrainingLog(str(output_dir), optimizer, evaluator, seconds=0),
            RecordRun(str(output_dir), {"epochs": epochs}, cohort.inputs, cohort.counts),
            *extra_handlers,
        ],
    )
    return Training(trainer, evaluator, network, optimizer, cohort, output_dir, model_dir)
