"""A bundle folder with weights that were never trained, but whose masks are neither empty nor full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_training import TINY_ENCODER

from propl_monai.inference.predictor import Predictor
from propl_monai.model.network import ProPL
from propl_monai.model.weights import save_weights

ABOUT: dict[str, Any] = {"preset": "test", "spatial_size": [32, 32], "normalisation": "half"}


def speckle(height: int, width: int, seed: int = 0, colour: bool = False) -> np.ndarray:
    """A picture of coarse random grains, uint8."""
    random = np.random.default_rng(seed)
    grains = random.integers(0, 256, (height // 6 + 1, width // 6 + 1, *([3] if colour else [])))
    return grains.repeat(6, 0).repeat(6, 1)[:height, :width].astype(np.uint8)


def small_network() -> ProPL:
    """Random weights in eval mode, each decoder shifted so that about half of a picture is target."""
    torch.manual_seed(0)
    network = ProPL(TINY_ENCODER).eval()
    network.choose_decoder("pd")
    sample = torch.from_numpy(speckle(64, 64)).float()[None, None] / 127.5 - 1
    with torch.no_grad():
        for name, decoder in (("sd", network.decoder_sd), ("pd", network.decoder_pd)):
            (bias,) = [value for key, value in decoder.out.named_parameters() if key.endswith("bias")]
            bias -= network(sample, task="left atrium", decoder=name).median()
    return network


def write_small_bundle(folder: Path) -> Path:
    """`models/` and `configs/metadata.json`, as in a bundle."""
    save_weights(small_network(), folder / "models", ABOUT)
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "small", "version": "0.0.1"}))
    return folder


def small_predictor(**options: Any) -> Predictor:
    """Without any file."""
    return Predictor(small_network(), (32, 32), "half", device="cpu", weights_sha256="0" * 64, **options)
