"""The entry of MONAI Label that predicts one task."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import numpy as np
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.transform.writer import Writer

import propl_monai
from propl_monai.deploy.monai_label.lib.labels import LOSSY
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.errors import ProPLError
from propl_monai.tasks import Task

logger = logging.getLogger(__name__)


class TaskInfer(InferTask):
    """Predicts one task under its own label name.

    Args:
        served: the network of all entries.
        task: what to predict.
    """

    def __init__(self, served: Served, task: Task) -> None:
        super().__init__(InferType.SEGMENTATION, {task.name: 1}, 2, task.prompt)
        self.served, self.task = served, task

    def is_valid(self) -> bool:
        """Whether there are weights; a training replaces them atomically."""
        return self.served.weights.is_file()

    def info(self) -> dict[str, Any]:
        """The description of this entry that viewers show."""
        return {**super().info(), "version": propl_monai.__version__}

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Predict one picture.

        Args:
            request: "image" is its path; "result_extension" is the format of the mask if not PNG.

        Returns:
            The path of a mask of 0 and 1 in a temporary file, which MONAI Label deletes, and JSON values.

        Raises:
            MONAILabelException: the picture cannot be read.
        """
        begun, image = time.monotonic(), request.get("image")
        if not isinstance(image, str):
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, "give the picture as a file")
        try:
            mask = self.served.mask(image, self.task)
        except ProPLError as error:
            logger.error("%s", error)
            raise MONAILabelException(MONAILabelError.INFERENCE_ERROR, str(error)) from error
        extension = str(request.get("result_extension") or ".png")
        if not re.fullmatch(r"(\.\w{1,8}){1,2}", extension):  # it becomes part of a path
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, f"{extension!r} is no suffix of a file")
        if extension.lower() in LOSSY:  # viewers request the format of the picture; JPEG would blur the edges
            extension = ".png"
        # MONAI Label's writer expects x first.
        data = {**request, "image_path": image, "pred": mask.astype(np.uint8).T, "result_extension": extension}
        file, _ = Writer(label="pred")(data)
        return file, {"label_names": self.labels, "latencies": {"total": round(time.monotonic() - begun, 3)}}
