"""The inferer of the bundle's configs."""

from __future__ import annotations

from monai.inferers import Inferer

from propl_monai.inference.engines.decoding import TaskDecoder


class PromptInferer(TaskDecoder, Inferer):
    """`TaskDecoder` as MONAI's evaluators take it: encodes a batch once and decodes it for every wanted task.

    Args: those of `TaskDecoder`.
    """
