"""What all steps share: where the data are, where to work, on which device."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.pack import unpack
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import DATALIST
from propl_monai.datasets.sources.registry import read_source
from propl_monai.datasets.verification.verify import verify_now


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

    def root(self) -> Path:
        """The folder of the pictures; an archive is unpacked once."""
        data = Path(self.data)
        return unpack(data, Path(self.work) / "data") if data.is_file() else data

    def datalist(self) -> Datalist:
        """The cases, verified once: the list in the folder, if it has one, as its splits then stay those of the original."""
        root, file = self.root(), self.datalist_file
        inside = root / DATALIST
        datalist = Datalist.read(inside, root) if inside.is_file() else read_source("folder", str(root))
        datalist.write(file)
        verify_now(datalist, file)
        return datalist

    @property
    def datalist_file(self) -> Path:
        """Where `datalist` writes it, with the record of its verification beside it."""
        return Path(self.work) / DATALIST
