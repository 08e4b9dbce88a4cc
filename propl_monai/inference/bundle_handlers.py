"""The bundle's inference through MONAI: the images, and what is written for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from propl_monai import tasks as registry
from propl_monai.common.options import switch
from propl_monai.common.run_record import RunRecord, conclude
from propl_monai.errors import ProPLError
from propl_monai.images import read_image
from propl_monai.inference.inputs import find_inputs
from propl_monai.inference.prediction import from_maps, write_predictions

logger = logging.getLogger(__name__)


class InputImages:
    """The images of a file or folder (recursive), each opened once to see that it can be read.

    Args:
        path: a file or a folder; what lies inside `output_dir` is passed over.
        output_dir: where the results go.

    Attributes:
        items: {"image": path, "image_path": the same (loading replaces the first), "name": path of its results relative
            to the output folder, without suffix}.
        findings: (path, reason) of what cannot be read.
    """

    def __init__(self, path: str, output_dir: str) -> None:
        self.items: list[dict[str, str]] = []
        self.findings: list[tuple[str, str]] = []
        for file, name in find_inputs([path], output_dir):
            self._add(file, name)

    def _add(self, file: Path, name: str) -> None:
        try:
            read_image(file)
        except ProPLError as error:
            self.findings.append((str(file), f"{error.fact}; {error.cure}"))
            logger.error("%s", error)
        else:
            self.items.append({"image": str(file), "image_path": str(file), "name": name})


class SavePredictions:
    """A handler of the inference evaluator: writes masks, maps and overlays, and run.json.

    The files are those of `prediction.write_predictions`.

    Args:
        output_dir: where to write.
        images: the inputs; their findings go into run.json and the exit code.
        tasks: names, in the order of the maps.
        probability, uncertainty, overlay: what to write beside masks.
        options: settings for run.json.
        weights: the weights file, hashed into run.json.
    """

    def __init__(
        self,
        output_dir: str,
        images: InputImages,
        tasks: str | Sequence[str],
        probability: bool = False,
        uncertainty: bool = False,
        overlay: bool = False,
        options: Mapping[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        self.folder, self.images = Path(output_dir), images
        self.tasks = registry.find_all(tasks)
        self.probability, self.overlay = switch("probability", probability), switch("overlay", overlay)
        self.uncertainty = switch("uncertainty", uncertainty)
        self.options, self.weights = dict(options or {}), weights
        self.outputs: list[Path] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def _start(self, engine: Engine) -> None:
        inputs = [item["image"] for item in self.images.items] + ([self.weights] if self.weights else [])
        self.record = RunRecord(self.folder / "run.json", "predict", self.options, inputs)
        for path, reason in self.images.findings:
            self.record.finding(path, reason)
        self.record.write("running")

    def _save(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.save(item["image_path"], item["name"], output["probability"], output.get("uncertainty"))

    def save(self, image: str, name: str, probability: Tensor, uncertainty: Tensor | None) -> None:
        """Write the files of one image; `probability` and `uncertainty` are (K, H, W) at the original size."""
        names = [task.name for task in self.tasks]
        predictions = from_maps(names, probability, uncertainty if self.uncertainty else None)
        pixels = read_image(image).pixels if self.overlay else None
        self.outputs += write_predictions(self.folder / name, predictions, self.probability, pixels)

    def finish(self) -> int:
        """Write run.json; returns the exit code: 0, 3 when some inputs were refused, 2 when all were."""
        if not hasattr(self, "record"):  # nothing readable was there, so the engine never started
            self._start(Engine(lambda *_: None))
        results = {"images": len(self.images.items), "refused": len(self.images.findings)}
        status, code = conclude(*results.values())
        self.record.write(status, self.outputs, results)
        logger.info("%d images segmented, %d refused: %s", *results.values(), self.record.path)
        return code
