"""The reference: ProPL as the released code computes it, rebuilt from its description, without any of our shortcuts.

Built of MONAI, torch, transformers and timm blocks alone; it shares nothing with our network or training step. Its tensors
have the names of the authors' code, so that `released.from_released` gives our network the same weights.
"""

from __future__ import annotations

from typing import NamedTuple

import timm
import torch
from monai.losses import DiceLoss
from monai.networks.blocks import SubpixelUpsample, UnetOutBlock, UnetrUpBlock
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, ConvNextConfig, ConvNextModel

PREFIXES = {"sd": "", "pd": "uns_"}  # of the names of each decoder
TOKENS = 24  # of every sentence
WORDS = 30522  # of BERT's vocabulary


class Size(NamedTuple):
    """The reference of a preset: its encoder, the widths of v1 … v4, and its BERT."""

    encoder: str
    channels: tuple[int, int, int, int]
    text_width: int
    text_layers: int
    text_heads: int
    text_hidden: int


SIZES = {
    # The paper's: ConvNeXt-Tiny and a BERT-base.
    "paper": Size("convnext_tiny", (96, 192, 384, 768), 768, 12, 12, 3072),
    # Ours for a CPU: EfficientNet-Lite0 and the 6-layer MiniLM that its prompt bank was made with.
    "compact": Size("tf_efficientnet_lite0", (24, 40, 112, 320), 384, 6, 12, 1536),
}


class Positions(nn.Module):
    """A sinusoidal table as a buffer `pe`, (1, length, width): sine on even columns, cosine on odd ones."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        angle = torch.arange(length).double()[:, None] / 10000.0 ** (torch.arange(0, width, 2).double() / width)
        table = torch.zeros(1, length, width)
        table[0, :, 0::2], table[0, :, 1::2] = angle.sin().float(), angle.cos().float()
        self.register_buffer("pe", table)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.get_buffer("pe")[:, : tokens.shape[1]]


class Guide(nn.Module):
    """Prompting-upon-decoding on tokens (B, HW, C)."""

    def __init__(self, width: int, text_width: int, tokens: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, 1, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.self_attn_norm, self.cross_attn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.text_project = nn.Sequential(
            nn.Conv1d(TOKENS, tokens, 1), nn.GELU(), nn.Linear(text_width, width), nn.LeakyReLU()
        )
        self.vis_pos, self.txt_pos = Positions(width, 1024), Positions(width, tokens)
        self.scale = nn.Parameter(torch.tensor(1.7))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        text = self.text_project(text)
        value = self.norm1(x)
        query = key = self.vis_pos(value)
        x = x + self.self_attn_norm(self.self_attn(query, key, value)[0])
        query, key = self.vis_pos(self.norm2(x)), self.txt_pos(text)
        return x + self.scale * self.cross_attn_norm(self.cross_attn(query, key, text)[0])


class Stage(nn.Module):
    """A guided up-block: (B, C, h, w) and a skip (B, C', 2h, 2w) to (B, C', 2h, 2w)."""

    def __init__(self, width: int, out: int, text_width: int, tokens: int) -> None:
        super().__init__()
        self.guide_layer = Guide(width, text_width, tokens)
        self.decoder = UnetrUpBlock(2, width, out, 3, 2, norm_name="BATCH")

    def forward(self, x: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        tokens = self.guide_layer(x.reshape(batch, width, -1).permute(0, 2, 1), text)
        return self.decoder(tokens.permute(0, 2, 1).reshape(batch, width, height, breadth), skip)


class ConvNext(nn.Module):
    """Maps v1 … v4 of ConvNeXt-Tiny."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ConvNextModel(ConvNextConfig())

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.model(image, output_hidden_states=True).hidden_states[1:])


class Timm(nn.Module):
    """Maps v1 … v4 of a timm model."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = timm.create_model(name, pretrained=False, features_only=True)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.model(image)[-4:]


class Bert(nn.Module):
    """A frozen BERT; random weights do for a benchmark, as no time depends on them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        config = BertConfig(
            hidden_size=size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads,
            intermediate_size=size.text_hidden,
        )
        self.model = BertModel(config, add_pooling_layer=False).requires_grad_(False)

    def forward(self, words: Tensor) -> Tensor:
        return self.model(words).last_hidden_state


class PlainProPL(nn.Module):
    """Encoder, text model and both decoders, all of them at every call.

    Args:
        size: one of `SIZES`.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder: nn.Module = ConvNext() if size.encoder == "convnext_tiny" else Timm(size.encoder)
        self.text_encoder = Bert(size)
        c1, c2, c3, c4 = size.channels
        head = max(c1 // 4, 8)
        for prefix in PREFIXES.values():
            for name, module in (
                ("decoder16", Stage(c4, c3, size.text_width, 24)),
                ("decoder8", Stage(c3, c2, size.text_width, 12)),
                ("decoder4", Stage(c2, c1, size.text_width, 9)),
                ("decoder1", SubpixelUpsample(2, c1, head, 4)),
                ("out", UnetOutBlock(2, head, 1)),
            ):
                self.add_module(prefix + name, module)

    def forward(self, image: Tensor, words: Tensor, strength: float = 0.0) -> dict[str, Tensor]:
        """Logits (B, 1, H, W) of both decoders.

        Args:
            image: (B, 3, H, W), H and W multiples of 32.
            words: (B, 24), int64.
            strength: rate at which tokens of v4 are dropped for sd.
        """
        v1, v2, v3, v4 = self.encoder(image)
        text = self.text_encoder(words)
        dropped = v4 * functional.dropout(torch.ones_like(v4[:, :1]), strength) if strength else v4
        return {name: self.decode((v1, v2, v3, deepest), text, name) for name, deepest in (("sd", dropped), ("pd", v4))}

    def decode(self, maps: tuple[Tensor, ...], text: Tensor, decoder: str) -> Tensor:
        """Maps v1 … v4 and text (B, L, E) to the logits of decoder "sd" or "pd"."""
        prefix, z = PREFIXES[decoder], maps[3]
        for name, skip in (("decoder16", maps[2]), ("decoder8", maps[1]), ("decoder4", maps[0])):
            z = self.get_submodule(prefix + name)(z, skip, text)
        return self.get_submodule(prefix + "out")(self.get_submodule(prefix + "decoder1")(z))


class PlainStep:
    """The released training step: N + 1 whole forward passes of every unlabelled batch, each with its graph.

    Args:
        network: trained in place.
        passes: N.
        strength, power, weight: dropout rate of tokens; p of exp(-γ^p); weight of the unlabelled loss.
    """

    def __init__(
        self, network: PlainProPL, passes: int, strength: float = 0.3, power: int = 1, weight: float = 1.0
    ) -> None:
        self.network, self.passes, self.strength = network, passes, strength
        self.power, self.weight = power, weight
        self.dice = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)

    def __call__(self, labelled: tuple[Tensor, ...], unlabelled: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Losses of one pair of batches: (image, words, label) and (image, words)."""
        image, words, label = labelled
        supervised = self.loss(self.network(image, words)["sd"], label)
        image, words = unlabelled
        mean = squares = image.new_zeros(())
        for count in range(1, self.passes + 1):
            probability = self.network(image, words, self.strength)["sd"].sigmoid()
            step = probability - mean
            mean = mean + step / count
            squares = squares + step * (probability - mean)
        target = torch.exp(-((squares / self.passes) ** self.power)) * mean
        pseudo = self.loss(self.network(image, words)["pd"], target.detach())
        return {"loss": supervised + self.weight * pseudo, "supervised": supervised.detach(), "pseudo": pseudo.detach()}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy plus Dice loss."""
        return functional.binary_cross_entropy_with_logits(logits, target) + self.dice(logits, target)
