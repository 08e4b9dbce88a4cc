"""ST++ by hand: which images count as reliable, what they weigh, and what of the first stage is remembered."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import KillAt, Killed

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.model.weights import load_state
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.st_pp import STPPMethod
from propl_monai.training.pseudo_labels import PseudoLabels, path_of, read

TASKS = ["left atrium", "left atrium"]


def batch(seed: int, labelled: bool = False, weights: tuple[float, ...] = (1.0, 0.0)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    if labelled:
        return {"image": image, "task": TASKS, "label": (other > 0).float()}
    maps = {"pseudo_label": (other > 0).byte() * 255, "certainty": torch.full_like(image, 255).byte()}
    return {"image": image, "task": TASKS, "image_strong": image + 0.1, "picture_weight": torch.tensor(weights), **maps}


def labels(agreement: list[float]) -> PseudoLabels:
    maps = torch.zeros(len(agreement), 1, 2, 2, dtype=torch.uint8)
    return PseudoLabels(maps, maps, torch.tensor(agreement))


def test_the_most_reliable_half_of_each_task_comes_first(net: ProPL) -> None:
    """A hard task keeps its half, though all of its images are less reliable than those of the other."""
    method, tasks = STPPMethod(net), ["a", "b", "a", "b", "a", "a", "b"]
    given = labels([0.9, 0.1, 0.8, 0.3, 0.95, 0.7, 0.2])
    assert method.chosen(given, tasks, 1).picture_weight.tolist() == [1, 0, 0, 1, 1, 0, 1]
    assert method.chosen(given, tasks, 2).picture_weight.tolist() == [1] * 7
    assert STPPMethod(net, reliable=1.0).chosen(given, tasks, 1).picture_weight.tolist() == [1] * 7


def test_reliability_is_the_agreement_with_earlier_weights(net: ProPL) -> None:
    method = STPPMethod(net, views=["as-is"])
    image = batch(2)["image"]
    lesson, variance = method.teach(image, TASKS)
    assert lesson.picture_weight.tolist() == [1, 1] and float(variance) == 0  # all weights are the same yet
    with torch.no_grad():
        method.earlier[0].decoder_sd.out.conv.conv.bias.fill_(100)  # says target everywhere
        mask = copy.deepcopy(net).eval()(image, task=TASKS, decoder="sd") > 0
    found, _ = method.teach(image, TASKS)
    assert torch.equal(found.target, mask.float()) and bool(found.certainty.eq(1).all())
    expected = (mask.flatten(1).float().mean(1) + 1) / 2  # IoU with everything is the share of the mask
    torch.testing.assert_close(found.picture_weight, expected)
    assert (found.picture_weight < 1).all()


def test_two_empty_masks_agree(net: ProPL) -> None:
    with torch.no_grad():
        net.decoder_sd.out.conv.conv.bias.fill_(-100)
    found, _ = STPPMethod(net).teach(batch(2)["image"], TASKS)
    assert not found.target.any() and found.picture_weight.tolist() == [1, 1]


def test_only_reliable_images_teach_and_count(net: ProPL) -> None:
    method, first, second = STPPMethod(copy.deepcopy(net)).train(), batch(1, True), batch(2)
    found = method(first, second, 0.5)
    with torch.no_grad():
        logits = copy.deepcopy(net).train()(
            torch.cat((first["image"], second["image_strong"])), task=TASKS * 2, decoder="sd"
        )
        reliable = BCEDiceLoss()(logits[2:3], second["pseudo_label"][:1] / 255)
        expected = BCEDiceLoss()(logits[:2], first["label"]) + reliable
    assert found["loss"].item() == pytest.approx(float(expected), abs=1e-5)
    other = STPPMethod(copy.deepcopy(net)).train()(
        first, batch(2, weights=(1.0, 1.0)), 0.5
    )  # the idea off: all at once
    assert abs(other["loss"] - found["loss"]) > 1e-4
    none = STPPMethod(copy.deepcopy(net)).train()(first, batch(2, weights=(0.0, 0.0)), 0.5)
    assert float(none["pseudo"]) == 0


def test_weights_of_each_third_of_the_first_stage_are_kept(net: ProPL) -> None:
    method = STPPMethod(net).train()
    kept = []
    for progress in (0.0, 0.1, 0.12, 0.2, 0.23, 0.5):
        with torch.no_grad():
            net.decoder_sd.out.conv.conv.bias.fill_(progress)
        method(batch(1, True), None, progress)
        kept.append([round(float(each.decoder_sd.out.conv.conv.bias), 2) for each in method.earlier])
    start = kept[0][0]
    assert kept == [[start, start]] * 2 + [[0.12, start]] * 2 + [[0.12, 0.23]] * 2


def test_a_training_in_stages_resumes_to_the_bit(make_training: Callable[..., Any], tmp_path: Path) -> None:
    make = partial(STPPMethod, views=["as-is"])
    options = {"make_method": make, "rounds": 2, "epochs": 3, "steps": 3, "tasks": ["left atrium"]}
    whole = make_training(tmp_path / "whole", **options)
    whole.trainer.run()
    first = make_training(tmp_path / "halves", **options, extra_handlers=(KillAt(8),))
    with pytest.raises(Killed):
        first.trainer.run()
    second = make_training(tmp_path / "halves", **options, resume=True)
    second.trainer.run()
    states = [load_state(one.output_dir / "checkpoint_last.pt")["method"] for one in (whole, second)]
    assert int(states[0]["taken"]) == 2 and all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    stages = [read(path_of(whole.output_dir, number))[1].picture_weight for number in (1, 2)]
    assert 0 < stages[0].mean() < 1 and bool(stages[1].eq(1).all())


def test_bad_options_and_a_training_without_rounds(net: ProPL) -> None:
    with pytest.raises(ProPLError, match="st_pp reliable: 50 is outside"):
        STPPMethod(net, reliable=50)
    given = batch(2)
    del given["pseudo_label"]
    with pytest.raises(ProPLError, match="no pseudo-labels; add the handler Rounds"):
        STPPMethod(net).train()(None, given, 0.5)
