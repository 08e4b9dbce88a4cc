"""Prompting-upon-decoding against a float64 twin that spells eqs. 1-3 out, and the decoder's shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.blocks import SubpixelUpsample, UnetOutBlock
from scipy.special import erf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from propl_monai.errors import ProPLError
from propl_monai.model.decoder import (
    BLOCKS,
    SCALE_AT_START,
    DecoderStage,
    PromptedAttention,
    PromptedDecoder,
    enlarge,
    positions,
)
from propl_monai.model.encoder import Features

Array = np.ndarray[Any, np.dtype[np.float64]]
CHANNELS = (4, 8, 16, 32)


def weights(module: nn.Module) -> dict[str, Array]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def layer_norm(x: Array, state: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(query: Array, key: Array, value: Array, state: dict[str, Array], name: str, heads: int) -> Array:
    """Softmax attention of single tokens, head by head, in loops."""
    width = query.shape[-1]
    joined, offsets = state[f"{name}.in_proj_weight"], state[f"{name}.in_proj_bias"]
    q, k, v = (
        x @ joined[i * width : (i + 1) * width].T + offsets[i * width : (i + 1) * width]
        for i, x in enumerate((query, key, value))
    )
    result = np.zeros_like(q)
    for b in range(len(q)):
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            for token in range(q.shape[1]):
                scores = np.array([q[b, token, part] @ other[part] for other in k[b]]) / math.sqrt(width // heads)
                share = np.exp(scores) / np.exp(scores).sum()
                result[b, token, part] = share @ v[b][:, part]
    return result @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def sinusoids(length: int, width: int) -> Array:
    table = np.zeros((length, width))
    for place in range(length):
        for channel in range(width):
            angle = place / 10000 ** ((channel - channel % 2) / width)
            table[place, channel] = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
    return table


def twin(module: PromptedAttention, tokens: Array, text: Array, heads: int) -> Array:
    state = weights(module)
    mixed = np.einsum("ml,ble->bme", state["text_project.0.weight"][..., 0], text)
    mixed = mixed + state["text_project.0.bias"][:, None]
    gelu = mixed * (1 + erf(mixed / math.sqrt(2))) / 2
    prompt = gelu @ state["text_project.2.weight"].T + state["text_project.2.bias"]
    prompt = np.where(prompt > 0, prompt, 0.01 * prompt)  # eq. 2
    place = sinusoids(*tokens.shape[1:])
    z = layer_norm(tokens, state, "norm1")
    attended = attention(z + place, z + place, z, state, "self_attention", 1)
    z = tokens + layer_norm(attended, state, "self_attention_norm")  # eq. 1
    query = layer_norm(z, state, "norm2") + place
    attended = attention(query, prompt + sinusoids(*prompt.shape[1:]), prompt, state, "cross_attention", heads)
    return z + state["scale"] * layer_norm(attended, state, "cross_attention_norm")  # eq. 3


def randomised(module: nn.Module) -> nn.Module:
    """Norms and biases start at 1 and 0, which would hide a missing one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return module


@pytest.mark.parametrize(("channels", "heads"), [(8, 4), (6, 1)])
def test_equations_1_to_3_against_the_float64_twin(channels: int, heads: int) -> None:
    torch.manual_seed(0)
    module = PromptedAttention(channels, text_length=5, text_width=3, prompt_tokens=4)
    randomised(module).double()
    tokens, text = torch.randn(2, 6, channels).double(), torch.randn(2, 5, 3).double()
    found = module(tokens, text).detach().numpy()
    # `positions` works in float32, hence not 1e-12.
    np.testing.assert_allclose(found, twin(module, tokens.numpy(), text.numpy(), heads), rtol=0, atol=2e-6)


def test_positions_by_hand() -> None:
    found = positions(3, 4, torch.zeros(1))
    # Rates 1 and 10000^(-2/4) = 1/100; sine and cosine take turns.
    expected = [[0, 1, 0, 1], [0.841471, 0.540302, 0.01, 0.99995], [0.909297, -0.416147, 0.019999, 0.9998]]
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=0, atol=1e-6)


def test_positions_of_an_odd_width_and_another_type() -> None:
    found = positions(2, 3, torch.zeros(1, dtype=torch.bfloat16))
    assert found.shape == (1, 2, 3) and found.dtype == torch.bfloat16
    rate = 10000 ** (-2 / 3)
    expected = torch.tensor([[[0, 1, 0], [math.sin(1), math.cos(1), math.sin(rate)]]])
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=4e-3)


def test_alpha_starts_at_the_released_value_and_is_learned() -> None:
    module = PromptedAttention(8, 5, 3, 4)
    assert module.scale.item() == pytest.approx(1.7) and SCALE_AT_START == 1.7
    module(torch.randn(1, 6, 8), torch.randn(1, 5, 3)).square().sum().backward()
    assert module.scale.grad is not None and module.scale.grad != 0


def test_prompt_matters_exactly_when_alpha_is_not_zero() -> None:
    torch.manual_seed(0)
    module = PromptedAttention(8, 5, 3, 4)
    tokens, one, other = torch.randn(1, 6, 8), torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    with torch.no_grad():
        assert (module(tokens, one) - module(tokens, other)).abs().max() > 1e-3
        module.scale.zero_()
        assert torch.equal(module(tokens, one), module(tokens, other))


def features(batch: int = 2, height: int = 64, width: int = 32) -> Features:
    maps = [torch.randn(batch, c, height // d, width // d) for c, d in zip(CHANNELS, (4, 8, 16, 32), strict=True)]
    v1, v2, v3, v4 = maps
    return Features(v1, v2, v3, v4, height, width)


@pytest.fixture(scope="module")
def decoder() -> PromptedDecoder:
    torch.manual_seed(0)
    return PromptedDecoder(CHANNELS, text_length=24, text_width=6).eval()


def test_logits_have_the_size_of_the_image_before_padding(decoder: PromptedDecoder) -> None:
    seen = features()
    with torch.no_grad():
        whole = decoder(seen, torch.randn(2, 24, 6, generator=torch.Generator().manual_seed(0)))
        cut = decoder(
            seen._replace(height=45, width=31), torch.randn(2, 24, 6, generator=torch.Generator().manual_seed(0))
        )
    assert whole.shape == (2, 1, 64, 32)
    assert torch.equal(cut, whole[..., :45, :31])


def test_prompt_tokens_of_the_three_stages(decoder: PromptedDecoder) -> None:
    stages = (decoder.stage16, decoder.stage8, decoder.stage4)
    assert [stage.attention.text_project[0].out_channels for stage in stages] == [24, 12, 9]  # the released code's


@pytest.mark.parametrize("stage", ["stage16", "stage8", "stage4"])
def test_each_stage_alone_brings_the_prompt_in(decoder: PromptedDecoder, stage: str) -> None:
    torch.manual_seed(1)
    seen, one, other = features(), torch.randn(2, 24, 6), torch.randn(2, 24, 6)
    stages = {name: getattr(decoder, name).attention.scale for name in ("stage16", "stage8", "stage4")}
    with torch.no_grad():
        try:
            for scale in stages.values():
                scale.zero_()
            assert torch.equal(decoder(seen, one), decoder(seen, other))
            stages[stage].fill_(SCALE_AT_START)
            assert (decoder(seen, one) - decoder(seen, other)).abs().max() > 1e-4
        finally:
            for scale in stages.values():
                scale.fill_(SCALE_AT_START)


@pytest.mark.parametrize("name", ["v1", "v2", "v3", "v4"])
def test_every_feature_map_reaches_the_logits(decoder: PromptedDecoder, name: str) -> None:
    torch.manual_seed(2)
    seen, text = features(), torch.randn(2, 24, 6)
    changed = seen._replace(**{name: getattr(seen, name) + torch.randn_like(getattr(seen, name))})
    with torch.no_grad():
        assert (decoder(seen, text) - decoder(changed, text)).abs().max() > 1e-4


def test_images_of_a_batch_do_not_see_each_other_in_eval_mode(decoder: PromptedDecoder) -> None:
    torch.manual_seed(3)
    seen, text = features(), torch.randn(2, 24, 6)
    first = seen._replace(v1=seen.v1[:1], v2=seen.v2[:1], v3=seen.v3[:1], v4=seen.v4[:1])
    with torch.no_grad():
        together, alone = decoder(seen, text)[:1], decoder(first, text[:1])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("side", [8, 5])
def test_the_head_in_one_convolution_equals_the_head(side: int) -> None:
    torch.manual_seed(0)
    upsample, out = SubpixelUpsample(2, 12, 6, scale_factor=4), UnetOutBlock(2, 6, 1)
    parameters = [*upsample.parameters(), *out.parameters()]
    z = torch.randn(2, 12, side, side, requires_grad=True)
    found, wanted = enlarge(z, upsample, out), out(upsample(z))
    assert found.shape == (2, 1, 4 * side, 4 * side)
    assert torch.allclose(found, wanted, atol=1e-5)
    weight = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((one * weight).sum(), [z, *parameters]) for one in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        assert float(other.abs().max()) > 0
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "least", "most"), [(24, 9.5, 10.5), (96, 12, 13), (384, 12.5, 13.5)])
def test_how_much_less_the_light_block_multiplies(width: int, least: float, most: float) -> None:
    counts = []
    for block in BLOCKS:
        stage = DecoderStage(2 * width, width, 24, 6, 9, block)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            stage.up(torch.zeros(1, 2 * width, 4, 4), torch.zeros(1, width, 8, 8))
        # The enlargement is the same in both: a product of 2 × C by C at each of four places of 16 pixels.
        counts.append(counter.get_total_flops() - 2 * 16 * 4 * 2 * width * width)
    assert least < counts[0] / counts[1] < most


def test_the_light_decoder_uses_prompt_and_every_map() -> None:
    torch.manual_seed(0)
    decoder = PromptedDecoder(CHANNELS, text_length=24, text_width=6, block="light").eval()
    given = features()
    text = torch.randn(2, 24, 6)
    logits = decoder(given, text)
    assert logits.shape == (2, 1, 64, 32)
    assert float((logits - decoder(given, text.flip(0))).detach().abs().max()) > 1e-6
    for name in ("v1", "v2", "v3", "v4"):
        changed = decoder(given._replace(**{name: torch.zeros_like(getattr(given, name))}), text)
        assert float((logits - changed).detach().abs().max()) > 1e-6, name


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ProPLError, match="did you mean 'light'"):
        PromptedDecoder(CHANNELS, text_length=24, text_width=6, block="lite")


def test_attention_in_bfloat16_on_a_cpu_has_the_gradients_of_float32() -> None:
    torch.manual_seed(0)
    attention = PromptedAttention(8, 6, 12, 4).train()
    tokens, text = torch.randn(2, 16, 8), torch.randn(2, 6, 12)
    gradients = []
    for dtype in (None, torch.bfloat16):
        attention.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            attention(tokens, text).float().square().mean().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in attention.parameters() if each.grad is not None]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99
