"""One encoding for many tasks, decoders, uncertainty."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.inference.inferer import PromptInferer
from propl_monai.model.network import ProPL
from propl_monai.tasks import NAMES

TWO = ["left atrium", "thyroid nodule"]


def counted(network: ProPL) -> tuple[ProPL, list[int]]:
    """The network, and the batch size of each call of its `encode`."""
    other, calls = copy.copy(network), []

    def encode(image: Tensor) -> Any:
        calls.append(len(image))
        return network.encode(image)

    other.encode = encode  # type: ignore[method-assign]
    return other, calls


@pytest.fixture
def still() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_many_tasks_need_one_encoding_and_equal_single_calls(network: ProPL, still: None) -> None:
    image, (other, calls) = torch.rand(2, 1, 40, 33), counted(network)
    maps = PromptInferer(["LA", "thyroid_nodule", "myocardium"])(image, other)
    assert calls == [2] and maps.shape == (2, 3, 40, 33)
    for index, task in enumerate([*TWO, "myocardium"]):
        torch.testing.assert_close(maps[:, index], PromptInferer(task)(image, network)[:, 0], atol=1e-5, rtol=0)
        assert torch.allclose(maps[:, index], network(image, task=task)[:, 0], atol=1e-6)
    assert not torch.allclose(maps[:, 0], maps[:, 1], atol=1e-3)


@pytest.mark.parametrize(("batch", "rows"), [(1, [7]), (2, [8, 6]), (3, [6, 6, 6, 3]), (5, [5] * 7), (9, [9] * 7)])
def test_as_many_tasks_are_decoded_together_as_make_eight_rows(
    network: ProPL, still: None, monkeypatch: pytest.MonkeyPatch, batch: int, rows: list[int]
) -> None:
    """Seven tasks; every image keeps its own features, every map its place."""
    image, names, found = torch.rand(batch, 1, 32, 32), list(NAMES[:7]), []
    expected = torch.cat([network(image, task=name) for name in names], dim=1)
    decode = network.decode
    monkeypatch.setattr(
        network, "decode", lambda features, *rest: (found.append(len(rest[0])), decode(features, *rest))[1]
    )
    torch.testing.assert_close(PromptInferer(names)(image, network), expected, atol=1e-5, rtol=0)
    assert found == rows


def test_the_decoder_that_is_asked_for_predicts(network: ProPL, still: None) -> None:
    image = torch.rand(1, 1, 32, 32)
    maps = {name: PromptInferer("LA", name)(image, network) for name in (None, "sd", "pd", "mean")}
    assert torch.equal(maps[None], maps[network.chosen_decoder])
    assert not torch.allclose(maps["sd"], maps["pd"], atol=1e-3)
    assert torch.equal(maps["pd"], network(image, task="left atrium", decoder="pd"))


def test_a_batch_may_bring_its_own_tasks(network: ProPL, still: None) -> None:
    image = torch.rand(2, 1, 32, 32)
    maps = PromptInferer()(image, network, task=TWO)
    assert maps.shape == (2, 1, 32, 32) and torch.equal(maps, network(image, task=TWO))


def test_uncertainty_follows_the_logits(network: ProPL, still: None) -> None:
    image, (other, calls) = torch.rand(1, 1, 32, 32), counted(network)
    torch.manual_seed(0)
    maps = PromptInferer(TWO, uncertainty_passes=4)(image, other)
    assert maps.shape == (1, 4, 32, 32) and calls == [1]
    assert torch.equal(maps[:, :2], PromptInferer(TWO)(image, network))
    variance = maps[:, 2:]
    assert 0 <= variance.min() and variance.max() <= 0.25 and variance.max() > 0
    torch.manual_seed(0)
    assert torch.equal(PromptInferer(TWO, uncertainty_passes=4)(image, network), maps)
    assert PromptInferer(TWO, uncertainty_passes=4, strength=0.0)(image, network)[:, 2:].max() < 1e-12


def test_uncertainty_of_views_is_their_variance(network: ProPL, still: None) -> None:
    image, views = torch.rand(2, 1, 32, 32), ("as-is", "mirror")
    maps = PromptInferer(TWO, views=views)(image, network)
    plain = PromptInferer(TWO)
    first, second = plain(image, network).sigmoid(), plain(image.flip(-1), network).sigmoid().flip(-1)
    assert torch.allclose(maps[:, :2], plain(image, network), atol=1e-5)
    assert torch.allclose(maps[:, 2:], (first - second).square() / 4, atol=1e-6) and maps[:, 2:].max() > 1e-4
    own = PromptInferer(views=views)(image, network, task=TWO)
    assert torch.allclose(own[:, 1], torch.stack([maps[0, 2], maps[1, 3]]), atol=1e-6)


def test_one_kind_of_uncertainty_at_a_time() -> None:
    with pytest.raises(ProPLError, match="is wanted both of passes and of views"):
        PromptInferer(TWO, uncertainty_passes=2, views=("mirror",))
    with pytest.raises(ProPLError, match="unknown view 'miror'; did you mean 'mirror'"):
        PromptInferer(TWO, views=("miror",))


def test_unknown_task_of_the_inferer() -> None:
    with pytest.raises(ProPLError, match="tasks: unknown task 'left atrum'; did you mean 'left atrium'"):
        PromptInferer(["left atrum"])
