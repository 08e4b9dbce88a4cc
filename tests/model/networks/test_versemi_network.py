"""VerSemi's network: one head more than tasks, several heads at once, and the synthetic one out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import ABOUT, TINY_ENCODER

from propl_monai.errors import ProPLError
from propl_monai.model.networks.dodnet import DoDNet
from propl_monai.model.networks.versemi import VerSemi
from propl_monai.model.weights import load_network, load_weights, save_weights

TWO = ("left atrium", "fetal head")
IMAGE = torch.rand(2, 1, 64, 64)


@pytest.fixture(scope="module")
def two() -> VerSemi:
    torch.manual_seed(0)
    return VerSemi(TINY_ENCODER, TWO).eval()


def test_the_controller_has_one_task_more(two: VerSemi) -> None:
    plain = DoDNet(TINY_ENCODER, TWO)
    assert two.synthetic == 2 and two.task_names == list(TWO)
    assert two.decoder.controller.in_features == plain.decoder.controller.in_features + 1


def test_several_heads_equal_one_task_at_a_time(two: VerSemi) -> None:
    with torch.no_grad():
        found = two.heads(two.decoder.shown(two.features(IMAGE)), torch.tensor([[0, 1, 2], [1, 0, 2]]))
        assert found.shape == (2, 3, 64, 64)
        assert torch.equal(found[:, :1], two(IMAGE, task=TWO))
        assert torch.equal(found[:, 1:2], two(IMAGE, task=TWO[::-1]))
        assert all(not torch.equal(found[:, 2], found[:, n]) for n in (0, 1))


def test_the_synthetic_task_and_unknown_ones_cannot_be_asked_for(two: VerSemi) -> None:
    with pytest.raises(ProPLError, match="network 'versemi': unknown task 'thyroid nodule'"):
        two(IMAGE, task="TN")
    with pytest.raises(ProPLError, match="network 'versemi': reads no sentences"):
        two(IMAGE, text=torch.rand(2, 24, 384))
    with pytest.raises(RuntimeError):
        two(IMAGE, task=torch.tensor([two.synthetic]))


def test_weights_keep_the_extra_head_and_are_no_dodnet_s(two: VerSemi, tmp_path: Path) -> None:
    save_weights(two, tmp_path, ABOUT)
    found, header = load_network(tmp_path / "model.safetensors")
    assert isinstance(found, VerSemi) and header["architecture"]["tasks"] == list(TWO)
    assert torch.equal(found.decoder.controller.weight, two.decoder.controller.weight)
    with pytest.raises(ProPLError, match="holds network 'versemi', where 'dodnet' is wanted"):
        load_weights(DoDNet(TINY_ENCODER, TWO), tmp_path / "model.safetensors")
