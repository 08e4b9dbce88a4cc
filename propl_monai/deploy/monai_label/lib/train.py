"""The entry of MONAI Label that trains one task from its submitted labels and keeps the others."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.train import TrainTask

from propl_monai.common.run_record import RunRecord
from propl_monai.datasets.sources.registry import read_source
from propl_monai.deploy.monai_label.lib.labels import as_items, submitted
from propl_monai.deploy.monai_label.lib.served import Loaded, Served
from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL
from propl_monai.model.weights import FLAT_WEIGHTS, WEIGHTS, copy_aside, save_weights
from propl_monai.tasks import Task
from propl_monai.training.best_epoch import results_of
from propl_monai.training.learning import Settings, lasting, learn
from propl_monai.training.other_tasks import Pictures, pictures_of_others

FEWEST_TO_HOLD_OUT = 5
logger = logging.getLogger(__name__)


class TaskTrain(TrainTask):
    """Trains the task of one entry, starting from the served weights.

    New weights are published only if the task improved and no other task lost more Dice than `tolerance`. The earlier
    weights are kept in `models/previous`. All scores are logged and written to `runs/monai_label` of the bundle.

    Args:
        served: the network of all entries.
        task: to train.
        reference: a folder in the plain layout with labelled pictures of the other tasks; see `training.other_tasks`.
    """

    def __init__(self, served: Served, task: Task, reference: Path | None = None) -> None:
        super().__init__(f"Train {task.name} from its submitted labels and keep the other tasks")
        self.served, self.task, self.reference = served, task, reference

    def config(self) -> dict[str, Any]:
        """The settings that viewers show, with their defaults."""
        return asdict(Settings())

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train.

        Args:
            request: any of `config`; "val_split" is the share of labels that are held out to measure the task, if there
                are at least five; with fewer it is measured on the labels that it learns from.
            datastore: of the server.

        Returns:
            The results in run.json.

        Raises:
            MONAILabelException: there is no label of the task, or a file cannot be read.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                return self._train(request, datastore, Path(folder))
        except ProPLError as error:
            raise MONAILabelException(MONAILabelError.APP_TRAIN_FAILED, str(error)) from error

    def _train(self, request: Mapping[str, Any], datastore: Datastore, folder: Path) -> dict[str, Any]:
        settings = Settings.of(request)
        loaded = self.served.loaded()
        network = loaded.predictor.network
        network.require_decoder("mean", str(self.served.weights))  # both are trained
        assert isinstance(network, ProPL), "no other network has a decoder of this name"
        labels = submitted(datastore, self.task)
        own, refused = as_items(labels, self.task, folder / self.task.slug)
        if not own:
            cure = f"submit one with the tag {self.task.slug}, or with label_info that names {self.task.name}"
            raise ProPLError(self.task.name, "has no label to learn from", cure)
        learnt, held_out = _divide(own, settings.val_split)
        others = self._others(datastore, folder)
        options = {**asdict(settings), "task": self.task.name, "reference": self.reference and str(self.reference)}
        inputs = [self.served.weights, *(label.label for label in labels)]
        runs = self.served.folder / "runs" / "monai_label"
        number = 1 + len(list(runs.glob("*")))
        record = RunRecord(
            runs / f"{number:03d}_{self.task.slug}" / "run.json", "monai label training", options, inputs
        )
        for error in refused:
            record.finding(error.where, f"{error.fact}; {error.cure}")
        record.write("running")
        measured = {**others.measured, self.task.name: held_out or learnt}
        best = learn(network, self.task.name, learnt, others.rehearsed, measured, loaded.header, settings)
        words = {**others.reference, self.task.name: "labels held out" if held_out else "the labels it learnt from"}
        results = {**results_of(best, words), "labels": len(learnt), "labels_held_out": len(held_out)}
        outputs = self._publish(loaded, len(learnt)) if best.epoch else []
        record.write("partial" if refused else "finished", outputs, results)
        self._log(results)
        return results

    def _others(self, datastore: Datastore, folder: Path) -> Pictures:
        others = [task for task in self.served.tasks if task != self.task]
        labels = {task.name: as_items(submitted(datastore, task), task, folder / task.slug)[0] for task in others}
        study = [Path(datastore.get_image_uri(image_id)) for image_id in sorted(datastore.list_images())]
        reference = read_source("folder", self.reference) if self.reference else None
        return pictures_of_others(others, study, labels, reference)

    def _publish(self, loaded: Loaded, labels: int) -> list[Path]:
        """Write the new weights, and copy the earlier ones aside; the server loads them with its next request."""
        models = self.served.models
        copy_aside(models)
        about = lasting(loaded.header)
        about["monai_label"] = [*about.get("monai_label", []), {"task": self.task.name, "labels": labels}]
        save_weights(loaded.predictor.network, models, about)
        return [models / WEIGHTS, models / FLAT_WEIGHTS]

    def _log(self, results: Mapping[str, Any]) -> None:
        for task, row in results["dice"].items():
            logger.info(
                "%-15s Dice before %.3f  after %.3f  (%d pictures, %s)",
                *(task, row["before"], row["after"], row["pictures"], row["compared_with"]),
            )
        if results["epoch"]:
            logger.info("%s: the weights of epoch %d are published", self.task.name, results["epoch"])
        else:
            logger.info("%s: the weights are not changed, as %s", self.task.name, results["why"])


def _divide(items: Sequence[dict], share: float) -> tuple[list[dict], list[dict]]:
    """Items to learn from and items to hold out, none of these if there are fewer than five."""
    if len(items) < FEWEST_TO_HOLD_OUT or share <= 0:
        return list(items), []
    count = min(len(items) - 1, max(1, round(share * len(items))))
    places = {round(index * len(items) / count) for index in range(count)}  # evenly spaced in the order of names
    held_out = [items[index] for index in sorted(places)]
    return [item for index, item in enumerate(items) if index not in places], held_out
