"""VCLIPSeg's network: the prompt of each position by hand, images and a tiny volume, two decoders that differ."""

from __future__ import annotations

import pytest
import torch
from factories import TINY_ENCODER
from torch import Tensor, nn
from worked import filled, wave

from propl_monai.errors import ProPLError
from propl_monai.model.networks.vclipseg import InterpolatingDecoder, VCLIPSeg, VoxelPrompts
from propl_monai.model.prompts import PromptBank

TASKS = ["left atrium", "fetal head"]
IMAGE = torch.rand(2, 1, 64, 64)


@pytest.fixture(scope="module")
def network() -> VCLIPSeg:
    torch.manual_seed(0)
    return VCLIPSeg(TINY_ENCODER).eval()


class Share(nn.Module):
    """Stands for the controller: the first position is all target, the second background with 3 to 1."""

    def forward(self, seen: Tensor) -> Tensor:
        share = torch.tensor([[1e-9, 0.75], [1.0, 0.25]]).log()
        return share.reshape(1, 2, 1, 2).expand(len(seen), -1, -1, -1)


def test_each_position_mixes_the_sentences_by_its_own_share() -> None:
    """Eqs. 1-3 with a map of 1 × 2 positions: what comes out of the join's input is the map and the prompt."""
    module = VoxelPrompts(2, 3)
    module.controller, module.join = Share(), nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        module.project.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
        module.project.bias.copy_(torch.tensor([0.0, 0.5]))
        texts = torch.tensor([[[4.0, 8, 9], [-4, 0, 9]]])  # background, target
        seen = torch.tensor([1.0, 2, 3, 4]).reshape(1, 2, 1, 2)
        found = module(seen, texts)
    assert torch.equal(found[:, :2], seen)
    # Target (-4, 0.5); and 0.75 · (4, 8.5) + 0.25 · (-4, 0.5).
    torch.testing.assert_close(found[0, 2:, 0].T, torch.tensor([[-4.0, 0.5], [2.0, 6.5]]))


@pytest.mark.parametrize("dims", [2, 3])
def test_images_and_a_tiny_volume(dims: int) -> None:
    torch.manual_seed(0)
    channels, size = (4, 8, 8, 16), (29, 32, 32)[:dims]
    maps = [torch.randn(2, width, *[8 // 2**n] * dims) for n, width in enumerate(channels)]
    prompts, decoder = VoxelPrompts(16, 6, dims), InterpolatingDecoder(channels, spatial_dims=dims)
    prompted = prompts(maps[-1], torch.randn(2, 2, 6))
    assert prompted.shape == maps[-1].shape
    logits = decoder([*maps[:-1], prompted], size)
    assert logits.shape == (2, 1, *size)
    logits.square().mean().backward()
    for parameter in (*prompts.parameters(), *decoder.parameters()):
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_other_numbers_of_dimensions_are_refused() -> None:
    with pytest.raises(ProPLError, match="spatial_dims: unknown number of dimensions '4'"):
        VoxelPrompts(16, 6, 4)


def test_the_sentence_acts_in_the_deepest_map_alone(network: VCLIPSeg) -> None:
    with torch.no_grad():
        features = network.features(IMAGE)
        one, other = (network.prompted(features, network.text(tasks, 2)) for tasks in (TASKS, TASKS[::-1]))
    assert all(map(torch.equal, one[:3], features[:3])) and not torch.equal(one.v4, other.v4)


def test_the_decoder_of_transposed_convolutions_predicts(network: VCLIPSeg) -> None:
    with torch.no_grad():
        first, second = network.both(network.prompted(network.features(IMAGE), network.text(TASKS, 2)))
        assert torch.equal(network(IMAGE, task=TASKS), first)
    assert second.shape == first.shape and not torch.equal(first, second)


def test_a_sentence_instead_of_a_task_and_any_bank(network: VCLIPSeg) -> None:
    with torch.no_grad():
        text = network.text(TASKS, 2)
        assert torch.equal(network(IMAGE, text=text), network(IMAGE, task=TASKS))
        wide = VCLIPSeg(TINY_ENCODER, prompts=False, text_shape=(5, 7)).eval()
        names, sentences = ["left atrium"], ["find it"]
        bank = PromptBank(names, sentences, torch.randn(1, 5, 7), torch.ones(1, 5), "none", "0")
        wide.attach_prompts(bank)
        assert wide(IMAGE, task="left atrium").shape == (2, 1, 64, 64)
    with pytest.raises(ProPLError, match="prompt bank: has"):
        wide.attach_prompts(PromptBank.load())


def test_the_numbers_of_the_released_code() -> None:
    """SmileJET/VCLIPSeg at fe50145, `clip_block` in train mode with these weights: the last column of each channel's map."""
    module = filled(VoxelPrompts(4, 3, 3)).train()
    texts = wave(2, 3, phase=4).expand(2, 2, 3)
    found = module(wave(2, 4, 2, 2, 2), texts)[:, :, 0, 1, 1]
    expected = [-0.020861, -0.002867, 1.140003, -0.007699, -0.021313, -0.001585, 2.067443, -0.007044]
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-4)
