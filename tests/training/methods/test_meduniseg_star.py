"""MedUniSeg*: two stages of one training, or the second alone on weights of another; images that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ABOUT, tiny_network

from propl_monai.errors import ProPLError
from propl_monai.model.weights import save_weights, start_from
from propl_monai.training.methods.deep_supervision import DeepSupervisionMethod
from propl_monai.training.methods.meduniseg_star import MedUniSegStarMethod

TASKS = ["left atrium", "fetal head"]
NEW = ("lora_", ".new.", "new_head")


def make(joint: float = 0.5, **options: Any) -> MedUniSegStarMethod:
    torch.manual_seed(0)
    network = tiny_network("meduniseg_star", **options)
    with torch.no_grad():  # as after a step: at the very start LoRA is 0, and half of it without a gradient
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return MedUniSegStarMethod(network, joint).train()


def batch(*tasks: str) -> dict[str, Any]:
    image = torch.randn(len(tasks), 1, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"image": image, "label": (image > 0.3).float(), "task": list(tasks)}


@pytest.mark.parametrize(("progress", "relearning"), [(0.0, False), (0.49, False), (0.5, True), (1.0, True)])
def test_each_stage_trains_its_own_parts(progress: float, relearning: bool) -> None:
    method = make()
    result = method(batch(*TASKS), None, progress)
    result["loss"].backward()
    assert ("relearnt" in result) is relearning
    for name, parameter in method.named_parameters():
        if name.startswith("heads.") or any(part in name for part in NEW) is relearning:
            assert parameter.grad is not None and bool(parameter.grad.any()), name
        else:
            assert parameter.grad is None, name


def test_the_first_stage_is_deep_supervision() -> None:
    method = make()
    plain = DeepSupervisionMethod(method.network)
    plain.load_state_dict(method.state_dict())
    found, wanted = (each(batch(*TASKS), None, 0.0)["loss"] for each in (method, plain))
    assert torch.equal(found, wanted)


def test_images_of_other_tasks_do_not_count_in_the_second() -> None:
    method = make(relearn=["fetal head"])
    mixed, both = batch(*TASKS), method(batch(*TASKS), None, 1.0)
    alone = method({key: value[1:] for key, value in mixed.items()}, None, 1.0)
    torch.testing.assert_close(both["loss"], alone["loss"])
    assert float(both["relearnt"]) == 0.5 and both["logits"].shape == (2, 1, 64, 64)
    assert not torch.allclose(both["loss"], method(mixed, None, 0.0)["loss"])


def test_a_batch_without_a_task_to_relearn_teaches_nothing() -> None:
    method = make(relearn=["fetal head"])
    result = method(batch("left atrium"), None, 1.0)
    result["loss"].backward()
    assert result["loss"].item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in method.parameters())


def test_the_second_stage_alone_needs_weights_to_start_from(tmp_path: Path) -> None:
    method = make(joint=0)
    with pytest.raises(ProPLError, match=r"encoder_weights: hold no weights of meduniseg.*\(joint 0\)"):
        method(batch(*TASKS), None, 0.0)
    save_weights(tiny_network("meduniseg"), tmp_path, ABOUT)
    start_from(method.network, str(tmp_path / "model.safetensors"))
    assert float(method(batch(*TASKS), None, 0.0)["relearnt"]) == 1


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ProPLError, match=r"joint: 1\.5 is not from 0 to 1"):
        make(joint=1.5)
