"""Masks, probabilities and uncertainty as numbers of the written files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from output_tools import pixels

from propl_monai.inference.prediction import from_maps, write_predictions


def test_figures_of_the_written_maps(tmp_path: Path) -> None:
    """16-bit maps by hand: 65535 is probability 1, and deviation 0.5; the mask begins above 0.5."""
    probability, variance = torch.tensor([[[0.0, 0.5, 0.51, 1.0]]]), torch.tensor([[[0.0, 0.01, 0.25, 0.3]]])
    (prediction,) = from_maps(["left atrium"], probability, variance, spacing_mm=(0.5, 0.25))
    assert (prediction.task, prediction.spacing_mm) == ("left atrium", (0.5, 0.25))
    written = write_predictions(tmp_path / "a", [prediction], True, np.zeros((1, 4), np.uint8))
    names = ("left_atrium", "left_atrium_probability", "left_atrium_uncertainty", "overlay")
    assert written == [tmp_path / f"a_{name}.png" for name in names]
    assert pixels(written[0]).tolist() == [[0, 0, 255, 255]]
    assert pixels(written[1]).tolist() == [[0, 32768, 33423, 65535]]
    assert pixels(written[2]).tolist() == [[0, 13107, 65535, 65535]]
    assert pixels(written[3]).shape == (1, 4, 3)
