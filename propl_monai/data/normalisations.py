"""How grey levels are scaled for an encoder; without torch, so that a prediction by ONNX Runtime starts without it."""

from __future__ import annotations

import numpy as np

NORMALISATIONS = {
    "imagenet": (0.449, 0.226),  # grey mean and deviation of ImageNet, for timm's ConvNeXt weights
    "half": (0.5, 0.5),  # what the TensorFlow family of EfficientNet was trained with
    "z-score": None,  # of each image, the released code's
}
LEAST_DEVIATION = 0.5 / 255  # half a grey level, as a constant image has none


def normalise(image: np.ndarray, kind: str) -> np.ndarray:
    """What `transforms.Normalised` gives, up to rounding.

    Args:
        image: float32, in [0, 1].
        kind: of `NORMALISATIONS`.
    """
    constants = NORMALISATIONS[kind]
    mean, deviation = constants or (image.mean(), max(float(image.std(ddof=1)), LEAST_DEVIATION))
    return ((image - np.float32(mean)) / np.float32(deviation)).astype(np.float32)
