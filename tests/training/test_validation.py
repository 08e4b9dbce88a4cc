"""The score that chooses epoch and decoder, on pictures counted by hand, and through MONAI's evaluator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from torch import Tensor

from propl_monai.model.network import ProPL
from propl_monai.training.validation import EveryDecoder, ValidationDice, dice


def strip(*filled: int) -> Tensor:
    """A mask of 1 × 8 pixels with these ones set."""
    mask = torch.zeros(1, 1, 8)
    mask[..., list(filled)] = 1
    return mask


def case(case_id: str, task: str, label: Tensor, *predictions: Tensor) -> dict[str, Any]:
    return {"case_id": case_id, "task": task, "label": label, "pred": torch.cat(predictions) * 4 - 2}


EMPTY, WHOLE = strip(), strip(*range(8))
CASES = [
    # sd 2·2/(2+2) = 1, pd 2·1/(2+2) = 1/2, mean 0
    case("a", "left atrium", strip(0, 1), strip(0, 1), strip(1, 2), strip(6, 7)),
    # sd 0 on empty, pd empty on empty is 1, mean 1
    case("b", "left atrium", EMPTY, strip(3), EMPTY, EMPTY),
    # sd 2·2/(2+8) = 0.4, pd 2·2/(4+2) = 2/3, mean 0 as it is empty
    case("c", "thyroid nodule", strip(4, 5), WHOLE, strip(3, 4, 5, 6), EMPTY),
]


def scored(cases: list[dict[str, Any]], *decoders: str) -> ValidationDice:
    metric = ValidationDice(decoders or ("sd", "pd", "mean"))
    metric.update(cases[:1])
    metric.update(cases[1:])
    metric.compute()
    return metric


def test_dice_by_hand() -> None:
    prediction = torch.cat([strip(0, 1, 2), EMPTY, strip(7)]) > 0
    assert dice(prediction, strip(1, 2) > 0).tolist() == pytest.approx([0.8, 0, 0])
    assert dice(prediction, EMPTY > 0).tolist() == [0, 1, 0]


def test_scores_by_task_and_decoder() -> None:
    metric = scored(CASES)
    assert metric.per_task["sd"] == pytest.approx({"left atrium": 0.5, "thyroid nodule": 0.4})
    assert metric.per_task["pd"] == pytest.approx({"left atrium": 0.75, "thyroid nodule": 2 / 3})
    assert metric.per_task["mean"] == pytest.approx({"left atrium": 0.5, "thyroid nodule": 0})
    # Tasks weigh the same, however many cases they have.
    assert metric.per_decoder == pytest.approx({"sd": 0.45, "pd": (0.75 + 2 / 3) / 2, "mean": 0.25})
    assert metric.best_decoder == "pd" and metric.compute() == pytest.approx((0.75 + 2 / 3) / 2)


def test_only_the_decoders_that_learnt_compete() -> None:
    metric = scored(CASES, "sd")
    assert set(metric.per_decoder) == {"sd"} and metric.best_decoder == "sd"
    assert metric.compute() == pytest.approx(0.45)


def test_a_logit_that_is_not_a_number_is_background() -> None:
    broken = {**CASES[0], "pred": torch.full((3, 1, 8), float("nan"))}
    assert scored([broken]).per_decoder == {"sd": 0, "pd": 0, "mean": 0}


def test_a_new_epoch_forgets_the_last() -> None:
    metric = scored(CASES)
    metric.reset()
    metric.update(CASES[:1])
    assert metric.compute() == 1 and metric.per_task["sd"] == {"left atrium": 1}


def test_every_decoder_equals_three_calls(network: ProPL) -> None:
    images = torch.rand(2, 1, 40, 33)
    tasks = ["left atrium", "thyroid nodule"]
    with torch.no_grad():
        maps = EveryDecoder()(images, network, task=tasks)
        single = [network(images, task=tasks, decoder=name) for name in ("sd", "pd", "mean")]
    assert maps.shape == (2, 3, 40, 33)
    assert torch.equal(maps[:, 2:].sigmoid() > 0.5, single[2].sigmoid() > 0.5)
    assert torch.allclose(maps, torch.cat(single, dim=1), atol=1e-6)
    assert not torch.allclose(maps[:, 0], maps[:, 1], atol=1e-3)


class Seen(EveryDecoder):
    """Keeps the tasks it is asked for, and answers with the image itself as logits."""

    def __init__(self) -> None:
        self.tasks: list[list[str]] = []

    def __call__(self, inputs: Tensor, network: Any, task: Any = None, **_: Any) -> Tensor:
        self.tasks.append(list(task))
        return torch.cat([inputs, -inputs, inputs * 0 - 1], dim=1)


def test_through_monais_evaluator() -> None:
    """One image a label: sd copies it, pd inverts it, mean says background."""
    labels = [strip(0, 1), strip(5), EMPTY]
    tasks = ["left atrium", "left atrium", "thyroid nodule"]
    items = [
        {"image": label * 2 - 1, "label": label, "task": task, "case_id": str(number)}
        for number, (label, task) in enumerate(zip(labels, tasks, strict=True))
    ]
    inferer, metric = Seen(), ValidationDice()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=torch.nn.Identity(),
        inferer=inferer,
        prepare_batch=PrepareBatchExtraInput(extra_keys={"task": "task"}),
        key_val_metric={"mdice": metric},
    )
    evaluator.run(3)
    assert inferer.tasks == [["left atrium", "left atrium"], ["thyroid nodule"]]
    assert evaluator.state.metrics["mdice"] == 1 and evaluator.state.epoch == 3
    assert evaluator.state.validation_dice is metric
    assert metric.per_decoder == {"sd": 1, "pd": 0, "mean": 0.5}
    evaluator.run(4)
    assert len(metric.rows) == 3


def test_ranks_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks with a case in common, which counts once."""
    from types import SimpleNamespace

    from propl_monai.training import validation

    here, there = ValidationDice(), ValidationDice()
    here.update(CASES[:2])
    there.update(CASES[1:])

    def gather(parts: list[dict], own: dict) -> None:
        parts[:] = [own, there.rows]

    ranks = {"is_initialized": lambda: True, "get_world_size": lambda: 2, "all_gather_object": gather}
    monkeypatch.setattr(validation, "distributed", SimpleNamespace(**ranks))
    assert here.compute() == pytest.approx((0.75 + 2 / 3) / 2)
