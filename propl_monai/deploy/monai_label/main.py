"""The app that `monailabel start_server` loads: one entry per task, all served by one network.

Settings (`--conf NAME VALUE`): `bundle`, the folder whose `models/model.safetensors` is served; and optionally
`reference`, a folder of labelled pictures in the plain layout, on which training rehearses and measures the other tasks.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.activelearning.random import Random

import propl_monai
from propl_monai.deploy.monai_label.lib.infer import TaskInfer
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.deploy.monai_label.lib.train import TaskTrain
from propl_monai.deploy.monai_label.lib.uncertainty import MostUncertain
from propl_monai.errors import ProPLError

# Pictures; NIfTI for the labels that viewers send.
EXTENSIONS = ("*.png", "*.jpg", "*.jpeg", "*.nii.gz")
logger = logging.getLogger(__name__)


class ProPLApp(MONAILabelApp):
    """ProPL behind MONAI Label.

    Args:
        app_dir: folder of this app, where MONAI Label writes its log.
        studies: folder of the pictures.
        conf: the settings above.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if not conf.get("bundle"):
            raise ProPLError("--conf bundle", "is missing", "give the folder that holds models/model.safetensors")
        self.served = Served(Path(conf["bundle"]))
        self.reference = Path(conf["reference"]) if conf.get("reference") else None
        if self.reference and not self.reference.is_dir():
            raise ProPLError(self.reference, "is not a folder", "check --conf reference, or leave it out")
        name = f"ProPL ultrasound ({propl_monai.__version__})"
        about = "One network, one entry per target. Research use only; not a medical device."
        super().__init__(app_dir, studies, conf, name, about, propl_monai.__version__)

    def init_datastore(self) -> Any:
        """A local folder of PNG and JPEG pictures."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        reload = settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD
        return LocalDatastore(self.studies, extensions=EXTENSIONS, auto_reload=reload)

    def init_infers(self) -> dict[str, TaskInfer]:
        """One entry per task, such as `thyroid_nodule`."""
        return {task.slug: TaskInfer(self.served, task) for task in self.served.tasks}

    def init_trainers(self) -> dict[str, TaskTrain]:
        """One trainer per task."""
        return {task.slug: TaskTrain(self.served, task, self.reference) for task in self.served.tasks}

    def init_strategies(self) -> dict[str, Any]:
        """`uncertainty_<task>` for every task, and `random`."""
        ranked = {f"uncertainty_{task.slug}": MostUncertain(self.served, task) for task in self.served.tasks}
        return {**ranked, "random": Random()}
