"""What all steps are told: where the data are, where to work, on which device. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """One call of the script, as a step sees it.

    Attributes:
        data: a folder in the plain layout, or an archive of `benchmarks.pack`.
        output: of the result files.
        work: folder for all that is large: unpacked data, trainings, logs.
        device: "cuda" or "cpu".
        tiny: everything as small as it can be, to see that it runs.
        workers: trainings at once; 0 for a number that fits the cores.
        encoder_weights: for the training of the paper's encoder: a file, or "none" for random ones.
        seconds: that the step may take.
    """

    data: str
    output: str
    work: str
    device: str = "cuda"
    tiny: bool = False
    workers: int = 0
    encoder_weights: str = "none"
    seconds: float = 600.0

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @property
    def settings(self) -> dict[str, object]:
        """What a result depends on: results of other settings are not mixed."""
        return {"data": Path(self.data).name, "device": self.device, "tiny": self.tiny}
