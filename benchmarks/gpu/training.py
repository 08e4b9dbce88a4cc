"""A short training on the data, as `bundle/configs/train.json` wires a long one, for the steps that measure trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.data import list_of, root_of
from benchmarks.gpu.plan import Plan
from propl_monai.data import transforms
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.datasets.cohort import TrainingCohort
from propl_monai.model.encoder import PACKAGED_WEIGHTS, load_pretrained
from propl_monai.model.network import ProPL
from propl_monai.tasks import NAMES
from propl_monai.training.methods.propl import ProPLMethod
from propl_monai.training.trainer import SemiSupervisedTrainer


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        encoder: a timm model name; its packaged weights are used where they are installed.
        pixels: of a side.
        batch: pictures of each stream.
        steps: of the only epoch.
        pictures: of each stream that are loaded.
        precision: see `SemiSupervisedTrainer`.
        loaders: processes of each stream.
        passes, strength: of UPLC; 1 and 0.0 leave out its random numbers, which differ between devices and precisions.
    """

    encoder: str = "tf_efficientnet_lite0"
    pixels: int = 160
    batch: int = 8
    steps: int = 30
    pictures: int = 128
    precision: str = "fp32"
    loaders: int = 0
    passes: int = 2
    strength: float = 0.3


def tiny(setting: Setting) -> dict[str, Any]:
    """The same as small as it can be, as changes for `dataclasses.replace`."""
    return {"encoder": "test_efficientnet", "pixels": 32, "batch": 2, "steps": 4, "pictures": 8, "loaders": 0}


def build(plan: Plan, setting: Setting, device: str, handlers: Sequence[Any] = ()) -> SemiSupervisedTrainer:
    """A trainer of ProPL with AdamW; the same weights and batches for every precision and device."""
    folder = Path(plan.work) / "short"
    cohort = TrainingCohort(str(root_of(plan)), str(list_of(plan)), str(folder), NAMES, "1/2")
    torch.manual_seed(0)
    network = ProPL(setting.encoder)
    package = PACKAGED_WEIGHTS.get(setting.encoder)
    load_pretrained(network.encoder, "package" if package and find_spec(package[0]) else None)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    method = ProPLMethod(network, passes=setting.passes, strength=setting.strength, supervise_pd=True)
    views = transforms.TrainingViews((setting.pixels, setting.pixels), "half", photometric=0.5, strong_view=0.5)
    loader = PairedLoader(
        DrawnDataset(_some(cohort.labelled, setting.pictures), views),
        DrawnDataset(_some(cohort.unlabelled, setting.pictures), views.unlabelled),
        *(setting.batch, setting.batch, 0, setting.loaders, setting.steps),
    )
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3, weight_decay=0.01)
    precision: dict[str, Any] = {"precision": setting.precision, "train_handlers": list(handlers)}
    return SemiSupervisedTrainer(device, 1, loader, method, optimizer, **precision)


def _some(items: Sequence[dict], count: int) -> list[dict]:
    """Evenly spaced, so that all tasks are there."""
    step = max(1, len(items) // count)
    return list(items[::step][:count])
