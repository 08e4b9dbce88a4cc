"""The bundle's inference through MONAI: the dataset of pictures, and the handler that writes results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.utils.data import Dataset

from propl_monai import tasks as registry
from propl_monai.common.files import file_sha256, lock_folder
from propl_monai.common.options import switch
from propl_monai.common.run_record import RunRecord
from propl_monai.errors import find_cause
from propl_monai.images.picture import NoPicture
from propl_monai.inference.inputs import InputFile, find_inputs, refuse_foreign_files
from propl_monai.inference.output_folder import OutputFolder
from propl_monai.inference.prediction import from_maps

logger = logging.getLogger(__name__)


class InputImages(Dataset):
    """The pictures of a file or folder (recursive), each read when its turn comes.

    A picture that cannot be read becomes a black one with the reason in `refused`, so that batches stay whole.

    Args:
        data: a file or a folder; everything inside `output_dir` is passed over.
        output_dir: where the results go.
        transform: from an item with "image" (path) to what the network takes, see `transforms.inference`.
        spatial_size: (rows, columns) of the network's grid.

    Attributes:
        items: {"image": path, "image_path": the same (loading replaces the first), "name": path of its results relative
            to the output folder, without suffix}.
    """

    def __init__(
        self,
        data: str,
        output_dir: str,
        transform: Callable[[dict[str, Any]], dict[str, Any]],
        spatial_size: Sequence[int] = (224, 224),
    ) -> None:
        self.transform, self.spatial_size, self.of_folder = transform, spatial_size, Path(data).is_dir()
        self.items: list[dict[str, Any]] = [
            {"image": str(file), "image_path": str(file), "name": name}
            for file, name in find_inputs([data], output_dir)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {**self.items[index], "sha256": "", "picture": b"", "refused": "", "passed_over": ""}
        try:
            return self.transform({**item, "sha256": file_sha256(Path(item["image"]))})
        except Exception as error:  # MONAI wraps what its transforms raise
            cause = find_cause(error)
            if cause is None:
                raise
            black = {"image": torch.zeros(1, *self.spatial_size), "original_size": (1, 1)}
            if isinstance(cause, NoPicture) and self.of_folder:
                return {**item, **black, "passed_over": cause.fact}
            return {**item, **black, "refused": f"{cause.fact}; {cause.cure}"}


class SavePredictions:
    """A handler of the inference evaluator: writes masks, maps and overlays, and run.json.

    The files are those of `prediction.write_predictions`; run.json is that of `propl predict`.

    Args:
        output_dir: where to write.
        images: the inputs.
        tasks: names, in the order of the maps.
        probability, uncertainty, overlay: what to write beside masks.
        options: settings for run.json.
        weights: the weights file, whose hash goes into run.json.
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
        self.folder, self.total = Path(output_dir), len(images)
        self.names = [item["name"] for item in images.items]
        self.tasks = registry.find_all(tasks)
        self.wanted = {"probability": switch("probability", probability), "overlay": switch("overlay", overlay)}
        self.uncertainty = switch("uncertainty", uncertainty)
        self.options, self.weights = dict(options or {}), [weights] if weights else []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def run(self, evaluator: Engine) -> int:
        """Run the evaluator that this handler is attached to.

        Returns:
            The exit code: 0, 3 when some inputs were refused, 2 when all were.
        """
        with lock_folder(self.folder):
            refuse_foreign_files(self.folder, self.names, [task.name for task in self.tasks])
            record = RunRecord(self.folder / "run.json", "predict", self.options, self.weights)
            self.results = OutputFolder(self.folder, {**self.wanted, "measurements": False}, record, self.total)
            record.write("running")
            try:
                evaluator.run()
                outcome = self.results.finish()
            except BaseException as error:  # Ctrl-C and a full disk too leave a run.json that says so
                self.results.fail(error)
                raise
        logger.info("%d images segmented, %d refused: %s", outcome.done, outcome.refused, record.path)
        return outcome.code

    def _save(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            path = Path(item["image_path"])
            if item["passed_over"]:
                self.results.pass_over(item["passed_over"])
                continue
            if item["refused"]:
                self.results.refuse(path, item["refused"])
                continue
            maps, variance = output["probability"], output.get("uncertainty") if self.uncertainty else None
            predictions = from_maps([task.name for task in self.tasks], maps, variance)
            grey = np.frombuffer(item["picture"], np.uint8) if self.wanted["overlay"] else None
            below = None if grey is None else grey.reshape(maps.shape[1:])
            self.results.write(InputFile(path, item["name"], item["sha256"]), 1, predictions, below)
