"""What every registered method must do: learn, stand odd batches, come back from a file, and predict as it declares."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from factories import ROOT, tiny_network
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.network import DECODERS
from propl_monai.model.networks.registry import NETWORKS
from propl_monai.training.methods import METHODS, Method

TASKS = ["left atrium", "myocardium", "left atrium"]
CONFIGS = ROOT / "bundle" / "configs"
every_method = pytest.mark.parametrize("name", METHODS)
OF_FEATURES = ("unimatch", "unimatch_v2", "u2pl", "ddfp", "univ_full", "csc_pa")
OTHERS = ["film", "versemi", "vclipseg", "uniseg", "meduniseg"]


def make(name: str, seed: int = 0, network: str | None = None, **options: Any) -> Method:
    torch.manual_seed(seed)
    return METHODS[name](tiny_network(network or METHODS[name].only or "propl", **options)).train()


def batch(seed: int, count: int = 3, labelled: bool = False, empty: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(count, 1, 64, 64, generator=generator) for _ in range(2))
    made: dict[str, Any] = {"image": image, "task": TASKS[:count]}
    strong: dict[str, Any] = {"image_strong": other, "image_strong_2": image + 0.1 * other}
    strong |= {"pseudo_label": (other > 0).byte() * 255, "certainty": torch.full_like(image, 255).byte()}
    strong |= {"picture_weight": torch.linspace(0, 1, count)}  # as `Rounds` adds them
    return made | ({"label": (other > (99 if empty else 0)).float()} if labelled else strong)


def train(method: Method, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        method(batch(step, labelled=True), batch(step + 9), step / steps)["loss"].backward()
        optimizer.step()
        method.after_step()


def predictions(method: Method) -> list[Tensor]:
    """Of the declared predictor, with each of the declared decoders."""
    net = method.predictor.eval()
    with torch.no_grad():
        return [net(batch(50)["image"], task=TASKS, decoder=decoder) for decoder in method.decoders]


def test_methods_are_found_by_name() -> None:
    semi_supervised = {"mean_teacher", "fixmatch", "cps", "unimatch", "st_pp", "bcp", "augseg", "versemi", "vclipseg"}
    semi_supervised |= {"csc_pa", "univ_full", "ddfp", "u2pl", "unimatch_v2"}
    supervised = {"supervised", "deep_supervision", "meduniseg_star"}
    assert set(METHODS) == {"propl", "propl_views"} | supervised | semi_supervised
    assert all(method.name == name for name, method in METHODS.items())


def test_every_method_has_a_config() -> None:
    found = {
        json.loads(path.read_text()).get("method_def", {}).get("_target_", "").rpartition(".")[2]
        for path in CONFIGS.glob("*.json")
    }
    assert found - {""} == {method.__name__ for method in METHODS.values()}


@every_method
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("propl", {}),
        ("propl", {"prompt_mode": "learned"}),
        ("film", {}),
        ("versemi", {}),
        ("vclipseg", {}),
        ("uniseg", {}),
        ("meduniseg", {}),
    ],
    ids=["propl", "learned", *OTHERS],
)
def test_gradient_reaches_every_parameter_that_trains(name: str, network: str, options: dict[str, Any]) -> None:
    only = METHODS[name].only
    if only not in (None, network) and not issubclass(NETWORKS[network], NETWORKS[only]):
        with pytest.raises(ProPLError, match=f"method '{name}': trains network {only}, not '{network}'"):
            make(name, network=network)
        return
    if name in OF_FEATURES and network.endswith("uniseg"):  # which gives none
        with pytest.raises(ProPLError, match="gives no features"):
            method = make(name, network=network, **options)
            method.step(batch(1, labelled=True), batch(2), 0.5)
        return
    method = make(name, network=network, **options)
    method.step(batch(1, labelled=True), batch(2), 0.5)["loss"].backward()
    untrained = [f"decoder_{decoder}." for decoder in ("sd", "pd") if decoder not in method.decoders]
    # Of networks with several decoders, methods of others train the one that predicts.
    elsewhere = {"vclipseg": ["second_decoder."]} if only is None else {}
    untrained = untrained if network == "propl" else elsewhere.get(network, [])
    for parameter_name, parameter in method.named_parameters():
        if parameter.requires_grad and not any(part in parameter_name for part in untrained):
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), parameter_name
            assert bool(parameter.grad.any()), parameter_name
        else:
            assert parameter.grad is None, parameter_name
    assert all(parameter.requires_grad for parameter in method.network.parameters())


@every_method
@pytest.mark.parametrize("progress", [0.0, 1.0])
@pytest.mark.parametrize(
    "labelled,unlabelled",
    [
        (batch(1, labelled=True), None),
        (batch(1, 1, labelled=True), None),
        (batch(1, 2, labelled=True, empty=True), None),
        (batch(1, labelled=True, empty=True), batch(2)),
        (batch(1, 1, labelled=True), batch(2, 3)),
        (batch(1, 3, labelled=True), batch(2, 1)),
        (None, batch(2, 1)),
        (None, batch(2, 2)),
    ],
    ids=["labels alone", "one label", "empty masks alone", "empty masks", "1 + 3", "3 + 1", "one image", "no labels"],
)
def test_odd_batches(name: str, labelled: dict | None, unlabelled: dict | None, progress: float) -> None:
    method = make(name)
    if labelled is None and not method.uses_unlabelled:
        return  # there is nothing to learn from, and the loader never gives such a pair
    result = method(labelled, unlabelled, progress)
    assert result["loss"].shape == () and all(bool(value.isfinite().all()) for value in result.values())
    assert all(not value.requires_grad for key, value in result.items() if key != "loss")
    assert (result["logits"].shape == labelled["label"].shape) if labelled else ("logits" not in result)
    result["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)


@every_method
def test_predictor_is_a_network_that_learns(name: str) -> None:
    method = make(name)
    assert type(method.predictor) is NETWORKS[method.only or "propl"]
    known = DECODERS if method.predictor.name == "propl" else method.predictor.decoders
    assert method.decoders and set(method.decoders) <= set(known)
    assert method.decoders == method.predictor.decoders[:1] or method.only == "propl"
    before = predictions(method)
    method.train()
    train(method)
    after = predictions(method)
    for old, new in zip(before, after, strict=True):
        assert new.shape == (3, 1, 64, 64) and bool(new.isfinite().all())
        assert not torch.equal(old, new)


@every_method
def test_state_comes_back(name: str) -> None:
    first, second = make(name), make(name, seed=1)
    train(first)
    second.load_state_dict(first.state_dict())
    assert all(map(torch.equal, predictions(first), predictions(second)))
    # And goes on in the same way.
    for method in (first.train(), second.train()):
        torch.manual_seed(7)
        train(method, 2)
    assert all(map(torch.equal, predictions(first), predictions(second)))
