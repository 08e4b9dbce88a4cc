"""Where the bundle is, and the smallest training of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from factories import ROOT

BUNDLE = ROOT / "bundle"
SMALL = {
    "spatial_size": "[32,32]",
    "epochs": "1",
    "encoder_weights": "none",
    "labelled_batch_size": "4",
    "unlabelled_batch_size": "4",
}

BundleRun = Callable[..., subprocess.CompletedProcess]


def configs(*names: str) -> str:
    """The value of --config_file for config files by name."""
    return str([str(BUNDLE / "configs" / f"{name}.json") for name in names])
