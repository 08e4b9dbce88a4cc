"""FixMatch by hand: which pixels teach, what they weigh, and what its passes leave behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from worked import CrossEntropy, Pointwise, drawings, labelled, unlabelled

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.fixmatch import FixMatchMethod

TASKS = ["left atrium", "left atrium"]


def batch(seed: int, labelled: bool = False) -> dict:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {"image_strong": other})


def loss_of(net: ProPL, **options: float) -> Tensor:
    torch.manual_seed(5)
    return FixMatchMethod(copy.deepcopy(net), **options).train()(batch(1, True), batch(2), 0.5)["loss"]


def middle(net: ProPL) -> float:
    """A threshold that about half of the pixels of the weak view reach."""
    teacher = FixMatchMethod(copy.deepcopy(net), confidence=0.5).train()
    with torch.no_grad():
        probability = teacher.network(batch(2)["image"], task=TASKS, decoder="sd").sigmoid()
    return float((probability - 0.5).abs().median() + 0.5)


def test_the_strong_view_learns_the_confident_pixels_of_the_weak_one(net: ProPL) -> None:
    """The labelled loss, and that of both views in passes of train mode; an unconfident pixel counts in the mean."""
    threshold = middle(net)
    first, second = batch(1, True), batch(2)
    found = FixMatchMethod(copy.deepcopy(net), confidence=threshold, unlabelled_weight=2.0, cutmix=0.0).train()(
        first, second, 0
    )
    other = copy.deepcopy(net).train()
    with torch.no_grad():
        probability = other(second["image"], task=TASKS, decoder="sd").sigmoid()
        logits = other(torch.cat((first["image"], second["image_strong"])), task=TASKS * 2, decoder="sd")
        weight = (torch.maximum(probability, 1 - probability) >= threshold).float()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(
            logits[2:], (probability > 0.5).float(), reduction="none"
        )
        both = BCEDiceLoss()(logits[2:], (probability > 0.5).float(), weight)
    assert float(found["confident"]) == pytest.approx(float(weight.mean())) and 0.3 < weight.mean() < 0.7
    assert float(found["pseudo"]) == pytest.approx(float(both), abs=1e-5)
    assert (entropy * weight).mean() < both  # over all pixels, beside the Dice part
    expected = BCEDiceLoss()(logits[:2], first["label"]) + 2 * both
    assert found["loss"].item() == pytest.approx(float(expected), abs=1e-5)


def test_its_parts_change_the_loss(net: ProPL) -> None:
    """Threshold, weight and CutMix: none of them is without effect."""
    options = {"confidence": middle(net), "unlabelled_weight": 1.0, "cutmix": 1.0}
    whole = loss_of(net, **options)
    for off in ({"confidence": 0.5}, {"unlabelled_weight": 0.0}, {"cutmix": 0.0}):
        assert abs(loss_of(net, **{**options, **off}) - whole) > 1e-4, off


def test_the_weak_pass_leaves_no_trace_in_batch_norm(net: ProPL) -> None:
    """It runs in train mode, as in the code of UniMatch, but what inference uses comes from the student's pass alone."""
    method, second = FixMatchMethod(copy.deepcopy(net), cutmix=0.0).train(), batch(2)
    method(None, second, 0.5)
    other = copy.deepcopy(net).train()
    with torch.no_grad():
        other(second["image_strong"], task=TASKS, decoder="sd")
    for name, value in other.named_buffers():
        torch.testing.assert_close(method.network.get_buffer(name), value)


def test_labels_have_no_gradient(net: ProPL) -> None:
    target, certain = FixMatchMethod(net, confidence=0.5).train().teach(batch(2))
    assert not target.requires_grad and set(target.unique().tolist()) <= {0, 1} and bool(certain.all())


def test_a_threshold_in_percent_is_refused(net: ProPL) -> None:
    with pytest.raises(ProPLError, match="fixmatch confidence: 95 is outside"):
        FixMatchMethod(net, confidence=95)


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiheYoung/UniMatch at 0324f3d, fixmatch.py: twice its loss, which is half of the sum."""
    monkeypatch.setattr("propl_monai.training.methods.weak_to_strong.draw_for", lambda *_: drawings()[0])
    method = FixMatchMethod(Pointwise()).train()
    method.loss = CrossEntropy()  # type: ignore[assignment]
    found = method(labelled(), unlabelled(), 0.5)
    assert float(found["supervised"]) == pytest.approx(1.606348, abs=1e-5)
    assert float(found["pseudo"]) == pytest.approx(0.094804, abs=1e-6)
    assert found["loss"].item() == pytest.approx(1.701152, abs=1e-5)
