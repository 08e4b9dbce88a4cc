"""What must hold on every device: `PROPL_DEVICE=cuda pytest tests/test_device.py`, the CPU by default.

Where there is no GPU, tensors without content stand in for those of one: torch then knows of each where it would be, and
refuses to mix devices as it does on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import TINY_ENCODER, KillAt, Killed, small_network, small_predictor, speckle, tiny_network
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from propl_monai.deploy.exportable import ExportableNetwork
from propl_monai.errors import ProPLError
from propl_monai.evaluation.metrics import case_row
from propl_monai.inference.inferer import PromptInferer
from propl_monai.inference.postprocess import RestoreSized
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network
from propl_monai.tasks import NAMES
from propl_monai.training.methods import METHODS
from propl_monai.training.trainer import PRECISIONS
from propl_monai.training.validation import EveryDecoder

DEVICE = os.environ.get("PROPL_DEVICE", "cpu")
KIND = torch.device(DEVICE).type
HEART = ["left atrium", "left ventricle", "myocardium", "left atrium"]
ROUNDING = 1e-5 if KIND == "cpu" else 0.02  # of probabilities: convolutions of a GPU round to TF32
Make = Callable[..., Any]  # `make_training` of conftest.py


def options_of(name: str) -> dict[str, Any]:
    """Options of a method that use all of its parts."""
    more: dict[str, Any] = {"propl": {"supervise_pd": True}, "propl_views": {"teacher": "offline"}}
    cutmix = {"cutmix": 1.0} if "cutmix" in signature(METHODS[name]).parameters else {}
    return cutmix | more.get(name, {})


# --- training


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_validates_and_saves(name: str, make_training: Make, tmp_path: Path) -> None:
    rounds = 1 if name in ("propl_views", "st_pp") else None
    make: Any = partial(METHODS[name], **options_of(name))  # methods differ in their options
    views, network = 2 if name in ("unimatch", "unimatch_v2") else 1, METHODS[name].only or "propl"
    options: dict[str, Any] = {"epochs": 2, "steps": 2, "rounds": rounds, "strong_views": views, "device": DEVICE}
    training = make_training(tmp_path, make_method=make, network_name=network, **options)
    training.trainer.run()
    assert {value.device.type for value in training.method.state_dict().values()} == {KIND}
    lines = training.metrics()
    assert len(lines) == 2 and all(0 < line["loss"] < 20 and line["skipped_steps"] == 0 for line in lines)
    assert all(0 <= line["validation"][training.method.decoders[0]] <= 1 for line in lines)
    best = max(range(2), key=lambda epoch: max(v for v in lines[epoch]["validation"].values() if isinstance(v, float)))
    kept, header = load_network(training.model_dir / "model.safetensors")
    assert header["epoch"] == best + 1
    if best == 1:  # the last weights, as they are on the device
        for key, value in training.method.predictor.state_dict().items():
            assert torch.equal(kept.state_dict()[key], value.cpu()), key


def test_a_training_resumes(make_training: Make, tmp_path: Path) -> None:
    options = {"make_method": METHODS["mean_teacher"], "epochs": 2, "steps": 2, "device": DEVICE}
    whole = make_training(tmp_path / "whole", **options)
    whole.trainer.run()
    stopped = make_training(tmp_path / "halves", **options, extra_handlers=(KillAt(3),))
    with pytest.raises(Killed):
        stopped.trainer.run()
    torch.manual_seed(1234)
    resumed = make_training(tmp_path / "halves", **options, resume=True)
    resumed.trainer.run()
    assert resumed.trainer.state.iteration == 4
    # Sums of a GPU have no fixed order.
    tolerance = 0 if KIND == "cpu" else 1e-3
    for one, two in zip(resumed.method.parameters(), whole.method.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_or_is_refused(precision: str, make_training: Make, tmp_path: Path) -> None:
    make = partial(make_training, tmp_path, epochs=1, steps=3, precision=precision, device=DEVICE)
    if precision == "fp16" and KIND != "cuda":
        with pytest.raises(ProPLError, match="fp16 needs CUDA"):
            make()
        return
    seen: set[torch.dtype] = set()
    training = make()
    for module in training.network.encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda layer, _, output: seen.add(output.dtype) if layer.training else None  # validation is in fp32
            )
    training.trainer.run()
    assert seen == {PRECISIONS[precision]}
    assert all(bool(torch.isfinite(value).all()) for value in training.method.state_dict().values())
    assert training.trainer.bad_steps < 3 or precision == "fp16"  # a loss scale may still be settling


@pytest.mark.parametrize("encoder", [TINY_ENCODER, "test_convnext"])
def test_gradients_in_bf16_point_where_those_in_fp32_do(encoder: str) -> None:
    directions = []
    for dtype in (None, torch.bfloat16):
        torch.manual_seed(0)
        network = ProPL(encoder).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
        method = METHODS["propl"](network, passes=1, strength=0.0, supervise_pd=True)  # type: ignore[call-arg]
        with torch.autocast(KIND, dtype=dtype, enabled=dtype is not None):
            loss = method.train()(*batches(DEVICE), 0.0)["loss"]
        loss.backward()
        found = [one.grad.float().flatten() for one in network.parameters() if one.grad is not None]
        directions.append(torch.cat(found))
    assert torch.nn.functional.cosine_similarity(*directions, dim=0) > 0.9


def batches(device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A labelled and an unlabelled batch of four pictures, always the same."""
    made = torch.Generator().manual_seed(0)

    def picture() -> Tensor:
        return nn.functional.interpolate(torch.rand(4, 1, 8, 8, generator=made), (32, 32)).to(device)

    image, strong = picture(), picture()
    labelled = {"image": image, "label": (image > 0.5).float(), "task": HEART}
    unlabelled = {"image": picture(), "image_strong": strong, "image_strong_2": strong.flip(0), "task": HEART}
    rounds = {"pseudo_label": (strong > 0.5).byte() * 255, "certainty": torch.full_like(strong, 255).byte()}
    return labelled, {**unlabelled, **rounds, "picture_weight": torch.linspace(0, 1, 4).to(device)}


# --- prediction


def test_predictions_are_those_of_the_cpu() -> None:
    picture = speckle(70, 90)
    on_cpu, on_device = small_predictor(tta=True), small_predictor(tta=True, device=DEVICE)
    assert next(on_device.network.parameters()).device.type == KIND
    names = list(NAMES[:3])
    for one, two in zip(on_cpu(picture, names), on_device(picture, names), strict=True):
        assert np.abs(one.probability - two.probability).max() <= ROUNDING
        assert two.mask.any() and not two.mask.all() and (one.mask != two.mask).mean() < 0.01


def test_uncertainty_is_the_same_each_time() -> None:
    predictor = small_predictor(device=DEVICE)
    first, second = (predictor(speckle(40, 50), NAMES[0], uncertainty=True) for _ in range(2))
    assert first.uncertainty is not None and second.uncertainty is not None
    assert first.uncertainty.max() > 0 and np.abs(first.uncertainty - second.uncertainty).max() <= ROUNDING


def test_an_export_of_a_network_on_the_device_gives_its_logits() -> None:
    network = small_network().to(DEVICE)
    image, number = torch.rand(1, 1, 32, 32), torch.tensor([2])
    with torch.no_grad():
        exported = ExportableNetwork(network, "pd")(image, number)
        found = network(image.to(DEVICE), task=number, decoder="pd").cpu()
    assert exported.device.type == "cpu" and network.encoder.backbone.training is False
    assert float((exported.sigmoid() - found.sigmoid()).abs().max()) <= ROUNDING


# --- metrics


def masks() -> Iterator[tuple[Tensor, Tensor]]:
    made = np.random.default_rng(0)
    for _ in range(3):
        grains = torch.from_numpy(made.random((2, 12, 16)) > 0.6).repeat_interleave(4, 1).repeat_interleave(4, 2)
        yield grains[0], grains[1]
    empty = torch.zeros_like(grains[0])
    yield from ((empty, grains[0]), (grains[0], empty), (empty, empty))


def test_dice_iou_and_hd95_are_those_of_the_cpu() -> None:
    rows = [[case_row(one.to(to), two.to(to), (0.3, 0.4)) for one, two in masks()] for to in ("cpu", DEVICE)]
    assert rows[0] == rows[1]
    assert [row["status"] for row in rows[0]] == ["ok", "ok", "ok", "missed", "false alarm", "both empty"]
    assert rows[0][0]["hd95_mm"]


def test_maps_of_the_device_are_scored_at_the_size_of_the_picture() -> None:
    network, (labelled, _) = small_network().to(DEVICE), batches(DEVICE)
    with torch.no_grad():
        logits = PromptInferer(list(NAMES[:2]), "mean")(labelled["image"], network)
    restored = RestoreSized("pred")({"pred": logits[0], "original_size": (40, 60)})["pred"]
    row = case_row(restored[:1] > 0, torch.ones(40, 60, dtype=torch.bool), None)
    assert (row["height"], row["width"], row["reference_pixels"]) == (40, 60, 2400)


# --- no GPU at hand


def moved(module: nn.Module, device: str) -> nn.Module:
    """The module with tensors of the same shapes in place of its own, in place; `.to` needs a real device."""
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, value in kind.items():
                if value is not None:
                    empty = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
                    kind[name] = nn.Parameter(empty, value.requires_grad) if kind is part._parameters else empty
    return module


def test_no_step_mixes_devices_or_waits_for_one() -> None:
    classes: dict[str, Any] = {**METHODS}
    averaged = {"propl_views": {"teacher": "ema"}}
    del classes["bcp"], classes["augseg"]  # they read numbers drawn on the CPU, which stand-ins of tensors cannot give
    for name in (
        "u2pl",
        "univ_full",
        "csc_pa",
        "ddfp",
    ):  # they go through the tasks of a batch, which waits for a device
        del classes[name]
    methods = [
        make(tiny_network(make.only or "propl"), **options_of(name) | averaged.get(name, {}))
        for name, make in classes.items()
    ]
    with FakeTensorMode():
        for method in methods:
            moved(method, "cuda").train()
            for progress in (0.05,) if method.name == "st_pp" else (0.05, 0.6):  # it counts the weights that it keeps
                result = method(*batches("cuda"), progress)
                assert {str(value.device) for value in result.values()} == {"cuda:0"}, method.name


def test_no_prediction_mixes_devices() -> None:
    network = ProPL(TINY_ENCODER).eval()
    with FakeTensorMode(), torch.no_grad():
        image = batches("cuda")[0]["image"]
        moved(network, "cuda")
        assert PromptInferer(HEART[:3], "mean", 2, tta=True)(image, network).device.type == "cuda"
        assert EveryDecoder()(image, network, HEART).device.type == "cuda"


def test_stand_ins_for_a_gpu_notice_what_was_left_on_the_cpu() -> None:
    network = ProPL(TINY_ENCODER).eval()
    with FakeTensorMode(), torch.no_grad():
        image = batches("cuda")[0]["image"]
        moved(network, "cuda")
        moved(network.decoder_sd.out, "cpu")
        with pytest.raises(RuntimeError, match="cuda"):
            network(image, task=HEART, decoder="sd")
