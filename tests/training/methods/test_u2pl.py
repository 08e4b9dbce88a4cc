"""U2PL by hand: which pixels teach, a contrast that two classes can have, and a memory for each task."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from worked import CrossEntropy, Pointwise, labelled, unlabelled, wave

from propl_monai import ProPL
from propl_monai.training.confidence import entropy
from propl_monai.training.feature_head import MemoryBank
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.u2pl import U2PLMethod

TASKS = ["left atrium", "fetal head"]


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {})


def make(net: ProPL, **options: Any) -> U2PLMethod:
    torch.manual_seed(5)
    return U2PLMethod(copy.deepcopy(net), **{"cutmix": 0.0, **options}).train()


def result_of(net: ProPL, **options: Any) -> dict[str, Tensor]:
    method = make(net, **options)
    torch.manual_seed(6)
    return method(batch(1, True), batch(2), 0.5)


def test_two_classes_have_a_contrast(net: ProPL) -> None:
    """The trap: with the original's ranks, 3 to 20, no unlabelled pixel of a binary task is ever a negative."""
    second = batch(2)
    counts = []
    for low_rank in (1, 3):
        method = make(net, low_rank=low_rank)
        assert (method(None, second, 0.5)["contrast"] > 0.1) == (low_rank == 1)
        counts.append(int(method.bank.pushed.sum()))
    assert counts[0] > 0 and counts[1] == 0


def test_each_task_has_a_memory_of_its_own(net: ProPL) -> None:
    method = make(net)
    method(batch(1, True), batch(2), 0.0)
    numbers = [net.task_names.index(name) for name in TASKS]
    filled = {int(group) // 2 for group in method.bank.pushed.nonzero().flatten()}
    assert filled == set(numbers)


def test_doubtful_pixels_teach_no_label(net: ProPL) -> None:
    """A tenth of them at half time, and the others weigh more; by hand, without CutMix and contrast."""
    first, second = batch(1, True), batch(2)
    found = result_of(net, contrastive_weight=0.0)
    with torch.no_grad():
        image = torch.cat((first["image"], second["image"]))
        logits = copy.deepcopy(net).train()(image, task=TASKS * 2, decoder="sd")
        probability = copy.deepcopy(net).eval()(second["image"], task=TASKS, decoder="sd").sigmoid()
        doubt = entropy(probability)
        kept = (doubt <= doubt.flatten().quantile(0.9)).float()
        pseudo = BCEDiceLoss()(logits[2:], (probability > 0.5).float(), kept / kept.mean()) / kept.mean()
    assert float(found["kept"]) == pytest.approx(0.9, abs=0.01)
    assert float(found["pseudo"]) == pytest.approx(float(pseudo), abs=1e-5)
    assert found["loss"].item() == pytest.approx(float(BCEDiceLoss()(logits[:2], first["label"]) + pseudo), abs=1e-5)


@pytest.mark.parametrize(
    "off", [{"contrastive_weight": 0.0}, {"drop": 0.0}, {"unlabelled_weight": 0.0}, {"temperature": 5.0}]
)
def test_its_parts_change_the_loss(net: ProPL, off: dict[str, Any]) -> None:
    assert abs(result_of(net, **off)["loss"] - result_of(net)["loss"]) > 1e-4


def test_the_teacher_s_head_follows_the_head(net: ProPL) -> None:
    method = make(net, decay=0.0)
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.add_(1)
    method.after_step()
    ours, theirs = method.head.state_dict(), method.teacher_head.module.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# --- numbers of the released code, Haochen-Wang409/U2PL at ab3d2be


def test_the_released_loss_of_sure_pixels() -> None:
    method = U2PLMethod(Pointwise(1.0), drop=0.2, contrastive_weight=0.0, cutmix=0.0).train()
    method.loss = CrossEntropy()  # type: ignore[assignment]
    found = method(labelled(), unlabelled(), 0.25)
    assert float(found["kept"]) == pytest.approx(40 / 48)
    assert float(found["pseudo"]) == pytest.approx(0.465781, abs=1e-6)


def test_the_released_contrast() -> None:
    """Ranks 1 and 2; all anchors of a class alike, and one negative each, so that no draw matters. The negative of the
    foreground, which the code's masks exclude, was put into its memory by hand."""
    ours = wave(2, 3).T.reshape(1, 3, 1, 2).expand(2, 3, 1, 2)
    theirs = wave(2, 3, 1, 2, phase=6)
    probability = torch.tensor([0.9, 0.2, 0.55, 0.48]).reshape(2, 1, 1, 2)
    label = torch.tensor([1.0, 0, 1, 0]).reshape(2, 1, 1, 2)
    method = U2PLMethod(Pointwise(), queries=7, negatives=3)
    method.bank = MemoryBank(16, 256, 3)
    method.bank.push(0, wave(1, 3, phase=9))
    loss = method._contrast(ours, theirs, probability, label, torch.tensor([0, 0]), 1, 0.3)
    assert float(loss) == pytest.approx(0.675882, abs=1e-6)
    assert torch.equal(method.bank.of(1), theirs[1:, :, 0, 1])
