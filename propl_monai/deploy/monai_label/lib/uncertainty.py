"""Active learning: the picture to label next for a task, by UPLC's uncertainty."""

from __future__ import annotations

import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from propl_monai.deploy.monai_label.lib.labels import unlabelled
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.errors import ProPLError
from propl_monai.tasks import Task

SCORED_PER_CALL = 100  # pictures; the server answers no other request meanwhile
logger = logging.getLogger(__name__)


class MostUncertain(Strategy):
    """Selects the picture without a label of the task on which its views disagree most.

    The score, their variance (eq. 4 of the paper) averaged over the picture, is stored in the datastore, and
    computed again when a training has changed the weights. A picture that was selected before comes after all others.

    Args:
        served: the network of all entries.
        task: of the labels.
    """

    def __init__(self, served: Served, task: Task) -> None:
        super().__init__(f"The picture in which the {task.name} is least certain")
        self.served, self.task = served, task
        self.key = f"uncertainty_{task.slug}"

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The "id" and "score" of the next picture, or None if all are labelled.

        Args:
            request: "limit" is the number of pictures to score in this call; the others wait for the next.
            datastore: of the server.
        """
        limit = int(request.get("limit") or SCORED_PER_CALL)
        stamp = self.served.loaded().stamp
        ranked = []
        for image_id in unlabelled(datastore, self.task):
            info = datastore.get_image_info(image_id)
            found = info.get(self.key, {})
            if found.get("weights") != stamp:
                if limit <= 0:
                    continue
                limit -= 1
                found = self._score(datastore, image_id, stamp)
            if found["score"] is not None:
                selected = info.get("strategy", {}).get(request.get("strategy"), {}).get("ts", 0)
                ranked.append((selected, -found["score"], image_id))
        if not ranked:
            return None
        _, score, image_id = min(ranked)
        logger.info("next for %s: %s of %d, score %.5f", self.task.name, image_id, len(ranked), -score)
        return {"id": image_id, "score": -score}

    def _score(self, datastore: Datastore, image_id: str, stamp: str) -> dict[str, Any]:
        score: float | None
        try:
            score = self.served.uncertainty(datastore.get_image_uri(image_id), self.task)
        except ProPLError as error:
            logger.warning("picture left out: %s", error)
            score = None
        found = {"score": score, "weights": stamp}
        datastore.update_image_info(image_id, {self.key: found})
        return found
