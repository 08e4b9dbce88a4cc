"""The teacher: an average counted by hand, never trained, the source of pseudo-labels and of predictions."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.model.uplc import PSEUDO_LABELS
from propl_monai.training.cutmix import cutmix, draw_cutmix
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.mean_teacher import MeanTeacherMethod

TASK = "left atrium"


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, strong, label = (torch.randn(2, 1, 32, 32, generator=generator) for _ in range(3))
    made: dict[str, Any] = {"image": image, "task": [TASK, TASK]}
    return made | ({"label": (label > 0).float()} if labelled else {"image_strong": strong})


def fill(net: ProPL, value: float) -> None:
    """One value in every weight and in every statistic of BatchNorm."""
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(value)


def test_average_by_hand(net: ProPL) -> None:
    method = MeanTeacherMethod(net, decay=0.5)
    expected = 0.0
    for update, value in enumerate((4.0, 6.0, 0.0)):
        fill(net, value)
        method.after_step()
        # Copied at first; then decay min(1/2, (t + 1) / (t + 10)): 2/11 after one update, 3/12 after two.
        decay = (0, 2 / 11, 3 / 12)[update]
        expected = decay * expected + (1 - decay) * value
        floats = [tensor for tensor in method.predictor.state_dict().values() if tensor.is_floating_point()]
        assert len(floats) > 100
        for tensor in floats:
            torch.testing.assert_close(tensor, torch.full_like(tensor, expected))
    assert expected == pytest.approx(1.4090909)
    method.teacher.n_averaged.fill_(10_000)
    fill(net, 1.0)
    method.after_step()
    assert next(method.predictor.parameters()).flatten()[0].item() == pytest.approx(0.5 * 1.4090909 + 0.5)


def test_what_is_no_number_to_average_stays(net: ProPL) -> None:
    """0.99 · 104 + 0.01 · 104 is 103.99 to a computer, and another letter in the name of a task."""
    method = MeanTeacherMethod(net)
    method.after_step()
    before = {name: value.clone() for name, value in method.predictor.named_buffers() if not value.is_floating_point()}
    assert net.prompts is not None and method.predictor.prompts is not None
    method.predictor.choose_decoder("mean")
    for _ in range(3):
        method.after_step()
    assert method.predictor.chosen_decoder == "mean"
    assert method.predictor.prompts.bank.describe() == net.prompts.bank.describe()
    for name, value in method.predictor.named_buffers():
        if name in before and name != "predictor":
            assert torch.equal(value, before[name]), name


def test_teacher_is_never_trained(net: ProPL) -> None:
    method = MeanTeacherMethod(net).train()
    assert method.network.training and not any(part.training for part in method.predictor.modules())
    before = copy.deepcopy(method.predictor.state_dict())
    method.step(batch(1, labelled=True), batch(2), 1.0)["loss"].backward()
    assert all(parameter.grad is None for parameter in method.predictor.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.predictor.state_dict().items())
    method.after_step()
    assert any(not torch.equal(value, before[name]) for name, value in method.predictor.state_dict().items())


def expected_target(probability: Tensor, kind: str) -> tuple[Tensor, Tensor | None]:
    if kind == "soft":
        return probability, None
    return (probability > 0.5).float(), (2 * probability - 1).abs() if kind == "weighted" else None


@pytest.mark.parametrize("kind", PSEUDO_LABELS)
def test_teacher_on_the_weak_view_teaches_the_student_on_the_strong_one(net: ProPL, kind: str) -> None:
    method = MeanTeacherMethod(net, pseudo_label=kind, unlabelled_weight=3.0).eval()
    with torch.no_grad():
        for parameter in method.predictor.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # another network than the student
    both = batch(2)
    result = method.step(None, both, 0.5)
    target, weight = expected_target(method.predictor(both["image"], task=TASK, decoder="sd").sigmoid(), kind)
    expected = BCEDiceLoss()(net(both["image_strong"], task=TASK, decoder="sd"), target, weight)
    torch.testing.assert_close(result["pseudo"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["loss"], 3 * math.exp(-1.25) * expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["pseudo_foreground"], target.mean())
    assert result["pseudo_weight"].item() == pytest.approx(3 * math.exp(-1.25))


@pytest.mark.parametrize("kind", PSEUDO_LABELS)
def test_cutmix_pastes_images_and_pseudo_labels_alike(net: ProPL, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    method = MeanTeacherMethod(net, pseudo_label=kind, cutmix=1.0).eval()
    both = batch(2)
    target, weight = expected_target(torch.rand(2, 1, 32, 32), kind)  # an untrained teacher's differ too little
    monkeypatch.setattr(method, "teach", lambda _: (target, weight))
    torch.manual_seed(3)
    result = method.step(None, both, 1.0)
    torch.manual_seed(3)
    drawing = draw_cutmix(both["task"], 32, 32, 1.0)
    logits = net(cutmix(drawing, both["image_strong"]), task=TASK, decoder="sd")
    expected = BCEDiceLoss()(logits, cutmix(drawing, target), None if weight is None else cutmix(drawing, weight))
    torch.testing.assert_close(result["loss"], expected, rtol=1e-4, atol=1e-5)
    assert (BCEDiceLoss()(logits, target, weight) - expected).abs() > 1e-4  # an unmixed target would be noticed


def test_both_batches_together_give_the_sum(net: ProPL) -> None:
    """In eval mode no image sees another, so a joint pass must change nothing."""
    method = MeanTeacherMethod(net).eval()
    labelled, unlabelled = batch(1, labelled=True), batch(2)
    joint = method.step(labelled, unlabelled, 0.7)
    parts = method.step(labelled, None, 0.7), method.step(None, unlabelled, 0.7)
    torch.testing.assert_close(joint["loss"], parts[0]["loss"] + parts[1]["loss"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint["supervised"], parts[0]["supervised"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint["logits"], parts[0]["logits"], rtol=1e-3, atol=1e-4)


def test_unknown_pseudo_label_is_refused_at_once(net: ProPL) -> None:
    with pytest.raises(ProPLError, match="unknown pseudo-label 'harder'; did you mean 'hard'"):
        MeanTeacherMethod(net, pseudo_label="harder")
