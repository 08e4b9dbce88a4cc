"""DDFP by hand: the flow is a density, its gradient stays with it, and features move to where it is lower."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from worked import wave

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.training.methods import ddfp
from propl_monai.training.methods.ddfp import DDFPMethod, TaskDensity, _mixture, _vectors

TASKS = ["left atrium", "fetal head"]


def batch(seed: int, labelled: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, other = (torch.randn(2, 1, 64, 64, generator=generator) for _ in range(2))
    return {"image": image, "task": TASKS} | ({"label": (other > 0).float()} if labelled else {"image_strong": other})


def result_of(net: ProPL, progress: float = 0.5, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(5)
    method = DDFPMethod(copy.deepcopy(net), **{"confidence": 0.5, "cutmix": 0.0, **options}).train()
    torch.manual_seed(6)
    return method(batch(1, True), batch(2), progress)


@pytest.fixture
def density() -> TaskDensity:
    torch.manual_seed(0)
    return TaskDensity(6, 2)


def test_it_is_the_density_of_a_change_of_variables(density: TaskDensity) -> None:
    """The volume is the determinant of the Jacobian; constants of the Gaussian are left out."""
    vectors, numbers = torch.randn(3, 6), torch.tensor([0, 1, 1])
    found = density.log_density(vectors, numbers) * 6
    for one, number, each in zip(torch.nn.functional.layer_norm(vectors, (6,)), numbers, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: density.flow()(x), one)
        distance = (density.flow()(one) - density.means[number]).square().sum(1)
        torch.testing.assert_close(each, -distance / 2 + torch.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-4)


def test_features_move_to_where_they_are_rarer(density: TaskDensity) -> None:
    """Each by the same length, a share of the mean."""
    maps, numbers = torch.randn(2, 6, 4, 4), torch.tensor([0, 1])

    def mean_density(given: Tensor) -> float:
        with torch.no_grad():
            return float(_mixture(density.log_density(*_vectors(given, numbers)), 6).mean())

    step = density.descent(maps, numbers, 0.05)
    torch.testing.assert_close(step.norm(dim=1), (0.05 * maps.norm(dim=1).mean()).expand(2, 4, 4))
    assert mean_density(maps + step) < mean_density(maps) < mean_density(maps - step)


def test_only_the_flow_learns_from_its_loss(net: ProPL) -> None:
    """And it alone: labels and pseudo-labels do not reach it."""
    torch.manual_seed(5)
    method = DDFPMethod(copy.deepcopy(net), confidence=0.5, cutmix=0.0).train()
    features = method.network.features(batch(1)["image"], TASKS)
    numbers = method.network.numbers(TASKS, 2)
    method.density.loss(features.v3.detach(), numbers, batch(1, True)["label"]).backward()
    assert all(parameter.grad is None for parameter in method.network.parameters())
    wanted = [parameter.grad.clone() for parameter in method.density.parameters()]  # type: ignore[union-attr]
    method.zero_grad()
    step = method.density.descent(features.v3, numbers, 0.3)
    method.network.logits(features._replace(v3=features.v3 + step), TASKS, "sd").mean().backward()
    assert all(parameter.grad is None for parameter in method.density.parameters()) and all(map(torch.any, wanted))


def test_the_flow_fits_what_it_sees(density: TaskDensity) -> None:
    torch.manual_seed(1)
    maps, numbers = torch.randn(2, 6, 8, 8) * torch.tensor([3.0, 1, 1, 1, 1, 1])[:, None, None], torch.tensor([0, 1])
    optimizer = torch.optim.Adam(density.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = density.loss(maps, numbers, None)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("off", [{"epsilon": 0.0}, {"confidence": 0.6}, {"unlabelled_weight": 0.0}])
def test_its_parts_change_the_loss(net: ProPL, off: dict[str, Any]) -> None:
    assert abs(result_of(net, **off)["loss"] - result_of(net)["loss"]) > 1e-4


def test_nothing_moves_in_the_warm_up(net: ProPL) -> None:
    early, late = result_of(net, 0.0, warmup=0.1), result_of(net, 0.1, warmup=0.1)
    assert early["pseudo_moved"] == early["pseudo"] == late["pseudo"] != late["pseudo_moved"]


def test_a_missing_library_is_named(net: ProPL, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> Any:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(ddfp, "import_module", missing)
    with pytest.raises(ProPLError, match=r"zuko: is not installed; .*\[flow\]"):
        DDFPMethod(net)


class GaussiansAlone(TaskDensity):
    """The base of the flow without the flow, on vectors that are not normalised: what the code's prior is."""

    def log_density(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        return -0.5 * (vectors[:, None] - self.means[numbers]).square().sum(2) / vectors.shape[1]


def test_the_numbers_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gavinwxy/DDFP at 7956c72: the likelihood of its mixture, of labelled and other vectors, and the step of its attack."""
    monkeypatch.setattr("propl_monai.training.methods.ddfp.NOISE", 0.0)
    density, maps, task = GaussiansAlone(3, 1), wave(2, 3, 1, 2, phase=1), torch.tensor([0, 0])
    density.means.data = wave(1, 2, 3, phase=4)
    constant = 1.5 * math.log(2 * math.pi)  # of the Gaussian, which ours leaves out; ours is for each dimension
    found = 3 * _mixture(density.log_density(*_vectors(maps, task)), 3) - constant
    assert found.tolist() == pytest.approx([-3.521170, -4.122620, -3.095992, -3.815779], abs=1e-5)
    label = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    assert 3 * density.loss(maps, task, label).item() + constant == pytest.approx(3.702492, abs=1e-5)
    step = 4 * functional.normalize(density.descent(maps, task, 1.0), dim=1)
    expected = [3.667404, 1.390053, -0.413234, 2.278261, 1.542526, -2.979476]
    assert step[0].flatten().tolist() == pytest.approx(expected, abs=1e-4)
