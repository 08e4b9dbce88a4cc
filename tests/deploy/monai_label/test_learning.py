"""Training one task through an entry: what it gains, and what the others may lose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from label_tools import phantom_items

from propl_monai.errors import ProPLError
from propl_monai.training.best_epoch import BestEpoch, Measure
from propl_monai.training.learning import KeepingOthers, Settings, learn

QUICK = {"max_epochs": 2, "steps_per_epoch": 4, "batch_size": 2}


def test_settings_of_a_request() -> None:
    assert Settings.of({}) == Settings() and Settings.of({"model": "x", "max_epochs": "3"}).max_epochs == 3
    for name, value in (
        *(("max_epochs", "many"), ("learning_rate", -1), ("learning_rate", "1e400"), ("tolerance", "nan")),
        *(("val_split", [1]), ("batch_size", float("inf")), ("seed", None)),
    ):
        with pytest.raises(
            ProPLError, match=rf"{name}: {re.escape(repr(value))} is no number from 0; give such a number"
        ):
            Settings.of({name: value})


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def looked_at(scores: list[dict[str, float]], tolerance: float = 0.02) -> BestEpoch:
    """`BestEpoch` after epochs with these Dice; each epoch leaves its number as the only weight."""
    network = torch.nn.Linear(1, 1, bias=False)
    epochs = iter(scores[1:])
    best = BestEpoch(network, "a", lambda _: next(epochs), scores[0], tolerance)  # type: ignore[arg-type]
    engine = Engine(lambda *_: None)
    for number in range(1, len(scores)):
        engine.state.epoch = number
        with torch.no_grad():
            network.weight.fill_(number)
        best.measure_epoch(engine)
    return best


@pytest.mark.parametrize(
    ("scores", "epoch"),
    [
        ([{"a": 0.5, "b": 0.9}, {"a": 0.6, "b": 0.9}, {"a": 0.8, "b": 0.885}, {"a": 0.7, "b": 0.9}], 2),
        ([{"a": 0.5, "b": 0.9}, {"a": 0.6, "b": 0.89}, {"a": 0.9, "b": 0.87}], 1),  # the second loses 3 points
        ([{"a": 0.5, "b": 0.9}, {"a": 0.5, "b": 0.9}, {"a": 0.4, "b": 0.9}], 0),  # as good is no gain
        ([{"a": 0.5, "b": 0.9}, {"a": 0.9, "b": 0.1}], 0),
    ],
)
def test_the_best_epoch_that_did_no_harm_is_kept(scores: list[dict[str, float]], epoch: int) -> None:
    best = looked_at(scores)
    assert best.epoch == epoch
    assert best.scores == scores[epoch]
    assert best.history == scores[1:]
    assert best.state is None if epoch == 0 else best.state["weight"].item() == epoch


def test_a_gain_is_kept_and_the_others_hold(served_network: Any, phantoms: Path) -> None:
    network, header = served_network
    own, other = phantom_items(phantoms, "LA", 4), phantom_items(phantoms, "FH", 4)
    rehearsed = [{"image": item["image"], "task": item["task"]} for item in other]
    before = weights(network)
    settings = Settings(**QUICK, learning_rate=1e-3, tolerance=0.5)
    measured = {"left atrium": own, "fetal head": other}
    best = learn(network, "left atrium", own, rehearsed, measured, header, settings)
    assert best.epoch > 0
    assert best.scores["left atrium"] > best.before["left atrium"]
    assert best.scores["fetal head"] >= best.before["fetal head"] - 0.5
    assert best.state and same(best.state, network.state_dict()) and not same(before, network.state_dict())
    assert Measure(network, measured, header)(network) == pytest.approx(best.scores)


def test_harm_leaves_the_weights_as_they_were(served_network: Any, phantoms: Path) -> None:
    network, header = served_network
    own, other = phantom_items(phantoms, "LA", 2), phantom_items(phantoms, "FH", 2)
    before = weights(network)
    measured = {"left atrium": own, "fetal head": [{k: item[k] for k in ("image", "task")} for item in other]}
    settings = Settings(**QUICK, learning_rate=0.3, tolerance=0.0)
    best = learn(network, "left atrium", own, [], measured, header, settings)
    assert best.before["fetal head"] == 1.0  # compared with its own masks
    assert best.epoch == 0 and best.harmed(best.history[-1]) == ["fetal head"]
    assert same(before, network.state_dict())
    assert not network.training


def test_training_is_repeatable(served_folder: Path, phantoms: Path) -> None:
    from propl_monai.model.weights import WEIGHTS, load_network

    own = phantom_items(phantoms, "TN", 3)
    ends = []
    for _ in range(2):
        network, header = load_network(served_folder / "models" / WEIGHTS)
        settings = Settings(**QUICK, learning_rate=1e-3)
        ends.append(learn(network, "thyroid nodule", own, [], {"thyroid nodule": own}, header, settings).history)
    assert ends[0] == ends[1]


def test_statistics_and_the_earlier_network_stay(served_network: Any, phantoms: Path) -> None:
    network, _ = served_network
    method = KeepingOthers(network)
    method.train()
    assert not any(module.training for module in network.modules())
    torch.manual_seed(0)
    image = torch.rand(2, 1, 32, 32)
    labelled = {"image": image, "label": (image > 0.5).float(), "task": ["fetal head"] * 2}
    earlier = weights(method.before)
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    result = method(labelled, {"image": image, "task": ["left atrium", "thyroid nodule"]}, 0.0)
    result["loss"].backward()
    optimizer.step()
    assert same(earlier, method.before.state_dict())
    assert same(statistics, dict(network.named_buffers()))
    assert result["loss"].item() == pytest.approx((result["supervised"] + result["kept"]).item())
    assert all(parameter.grad is None for parameter in method.before.parameters())


def test_keeping_costs_what_the_answers_have_moved(served_network: Any) -> None:
    network, _ = served_network
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    labelled = {"image": image, "label": (image > 0.5).float(), "task": ["fetal head"]}
    unlabelled = {"image": image, "task": ["left atrium"]}
    method = KeepingOthers(network, 1.0)
    assert method(labelled, unlabelled, 0.0)["kept"].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in network.decoder_pd.parameters():
            parameter.mul_(1.1)
    once = method(labelled, unlabelled, 0.0)
    assert once["kept"].item() > 1e-4
    method.keep_weight = 3.0
    thrice = method(labelled, unlabelled, 0.0)
    assert (thrice["loss"] - once["loss"]).item() == pytest.approx(2 * once["kept"].item(), rel=1e-3)
