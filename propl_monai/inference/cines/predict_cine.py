"""A cine frame by frame from Python: predictions as they come, steadied if that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from propl_monai.images import Cine, Picture, read_frames
from propl_monai.images.read import as_picture
from propl_monai.inference.cines.steady import Steady, require_steady
from propl_monai.inference.prediction import Prediction
from propl_monai.inference.predictor import Predictor, Prepared

Frame = tuple[Prepared, np.ndarray | None]


def predict_cine(
    predictor: Predictor,
    cine: str | Path | Cine | Iterable[np.ndarray],
    task: str | Sequence[str],
    *,
    uncertainty: bool = False,
    steady: float = 0.0,
) -> Iterator[list[Prediction]]:
    """Segment a cine; no more than a few batches of frames are held in memory.

    Args:
        predictor: with its own decoder, threshold and batch.
        cine: a file, a `Cine`, or frames uint8 (H, W) or (H, W, 3) in order.
        task: name, code or slug, or several.
        uncertainty: see `Predictor.predict`; that of each frame alone.
        steady: standard deviation, in frames, of a Gaussian over the probabilities of the frames around each; 0 for none.

    Yields:
        For each frame, one prediction per task.
    """
    deviation = require_steady(steady)
    names = predictor.names(task)
    frames = read_frames(cine) if isinstance(cine, (str, Path)) else cine
    spacing, box = (frames.spacing_mm, predictor.box_of(frames)) if isinstance(frames, Cine) else (None, None)
    pictures = (as_picture(Picture(pixels, spacing)) for pixels in frames)
    window: Steady[Frame] | None = Steady(deviation, len(names)) if deviation else None
    while batch := [predictor.prepare(one, uncertainty, box) for one in islice(pictures, predictor.batch)]:
        box = box or batch[0].box  # all frames are cut alike; of frames that come one by one, as the first
        maps, pooled = predictor.answer(batch, names, uncertainty)
        features = [None] * len(batch) if pooled is None else pooled
        for prepared, some, row in zip(batch, maps, features, strict=True):
            if window is None:
                yield predictor.finish(prepared, some, names, row)
                continue
            for (ready, its), steadied in window.push((prepared, row), some):
                yield predictor.finish(ready, steadied, names, its)
    if window is not None:
        for (ready, its), steadied in window.flush():
            yield predictor.finish(ready, steadied, names, its)
