"""Deep supervision: its loss by hand, what it adds to plain supervision, and a training that is killed and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import KillAt, Killed, tiny_network
from torch.nn import functional

from propl_monai.model.weights import load_state
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.deep_supervision import DeepSupervisionMethod
from propl_monai.training.methods.supervised import SupervisedMethod

TASKS = ["left atrium", "fetal head"]


def make(**options: Any) -> DeepSupervisionMethod:
    torch.manual_seed(0)
    return DeepSupervisionMethod(tiny_network("uniseg", **{"filters": (4, 8, 8, 8)} | options)).train()


def batch(*size: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, *size, generator=generator)
    return {"image": image, "label": (image > 0.3).float(), "task": TASKS}


def test_the_loss_by_hand() -> None:
    """Two levels, 2/3 and 1/3; the coarsest map, of a quarter of the size, has no head."""
    method, given, loss = make(), batch(32, 64), BCEDiceLoss()
    maps = method.network.maps(given["image"], method.network.numbers(TASKS, 2))
    assert [one.shape[-2:] for one in maps] == [(32, 64), (16, 32), (8, 16)] and len(method.heads) == 1
    coarse = functional.interpolate(given["label"], (16, 32), mode="nearest-exact")
    wanted = loss(method.network.head(maps[0]), given["label"]) * 2 / 3 + loss(method.heads[0](maps[1]), coarse) / 3
    result = method(given, None, 0.5)
    torch.testing.assert_close(result["loss"], wanted)
    torch.testing.assert_close(result["supervised"], loss(result["logits"], given["label"]))


def test_without_coarser_heads_it_is_plain_supervision() -> None:
    given = batch(32, 64)
    deep, flat = make(), make(filters=(4, 8, 8))
    plain = SupervisedMethod(deep.network)(given, None, 0.5)["loss"]
    assert abs(deep(given, None, 0.5)["loss"] - plain) > 1e-4
    assert len(flat.heads) == 0
    torch.testing.assert_close(flat(given, None, 0.5)["loss"], SupervisedMethod(flat.network)(given, None, 0.5)["loss"])


@pytest.mark.parametrize("dims", [2, 3])
def test_levels_fit_pictures_that_strides_do_not_divide(dims: int) -> None:
    given, method = batch(37, 21), make(spatial_dims=dims)
    assert [one.shape for one in method.levels(given)] == [(2, 1, 37, 21), (2, 1, 19, 11)]
    result = method(given, None, 0.0)
    with torch.no_grad():
        torch.testing.assert_close(result["logits"], method.network(given["image"], task=TASKS))
    result["loss"].backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in method.parameters())


def test_a_killed_training_resumes_to_the_bit(make_training: Callable[..., Any], tmp_path: Path) -> None:
    options = {"make_method": DeepSupervisionMethod, "network_name": "uniseg", "steps": 2, "epochs": 2}
    whole = make_training(tmp_path / "whole", **options)
    whole.trainer.run()
    with pytest.raises(Killed):
        make_training(tmp_path / "halves", **options, extra_handlers=(KillAt(3),)).trainer.run()
    torch.manual_seed(1234)
    second = make_training(tmp_path / "halves", **options, resume=True)
    second.trainer.run()
    states = [load_state(one.output_dir / "checkpoint_last.pt")["method"] for one in (whole, second)]
    assert any(key.startswith("heads.") for key in states[0])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert (second.model_dir / "model.pt").read_bytes() == (whole.model_dir / "model.pt").read_bytes()
