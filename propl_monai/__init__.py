"""ProPL: one model, any ultrasound target, asked for in words, trained from few labels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Predictor": "propl_monai.predictor",
    "Prediction": "propl_monai.prediction",
    "ProPL": "propl_monai.network",
    "PromptBank": "propl_monai.text",
    "ProPLError": "propl_monai.errors",
    "TASKS": "propl_monai.tasks",
    "Case": "propl_monai.datalist",
    "Datalist": "propl_monai.datalist",
    "read_image": "propl_monai.images",
    "read_frames": "propl_monai.images",
    "measure": "propl_monai.measurements",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    # Lazy, so that `propl info` and tools that only read datalists do not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'propl_monai' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
