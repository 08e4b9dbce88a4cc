"""The app that `monailabel start_server` loads: one entry per task, all served by one network.

Settings (`--conf NAME VALUE`): `bundle`, the folder whose `models/model.safetensors` is served; and optionally
`reference`, a folder of labelled pictures in the plain layout, on which training rehearses and measures the other tasks.

MONAI Label has no passwords by default and published advisories. So this app starts on a loopback address only, keeps to
the pictures of its study, and takes neither sessions (uploaded archives) nor paths of this machine.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.activelearning.random import Random

import propl_monai
from propl_monai.deploy.monai_label.lib.datastore import FencedDatastore, bad_request
from propl_monai.deploy.monai_label.lib.infer import TaskInfer
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.deploy.monai_label.lib.train import TaskTrain
from propl_monai.deploy.monai_label.lib.uncertainty import MostUncertain
from propl_monai.errors import ProPLError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
logger = logging.getLogger(__name__)


class ProPLApp(MONAILabelApp):
    """ProPL behind MONAI Label.

    Args:
        app_dir: folder of this app, where MONAI Label writes its log.
        studies: folder of the pictures.
        conf: the settings above.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        _require_loopback()
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
        return FencedDatastore(self.studies)

    def _load_sessions(self, load: bool = False) -> None:
        """No sessions: MONAI Label unpacks what is uploaded to one without checking the paths in it."""

    def bundle_path(self, model: str) -> str:
        """A folder for the module search path of a training, which a request could choose otherwise."""
        return self.app_dir

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Predict a picture of the study, or one that came with the request; see `MONAILabelApp`."""
        image = request.get("image")
        if isinstance(image, str) and image not in self.datastore().list_images():
            uploaded = Path(image)
            if uploaded.parent != Path(tempfile.gettempdir()) or not uploaded.name.startswith("tmp"):
                with bad_request():
                    raise ProPLError(
                        repr(image), "is no picture of the study", "list them with GET /datastore/?output=all"
                    )
        return super().infer(request, datastore)

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """As `infer`; there are no whole-slide images."""
        return self.infer(request, datastore)

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


def _require_loopback() -> None:
    """Refuse `start_server` on an address that other machines reach, which is MONAI Label's default."""
    if "start_server" in sys.argv:
        options = argparse.ArgumentParser(add_help=False)
        options.add_argument("-i", "--host", default="0.0.0.0")
        host = options.parse_known_args(sys.argv[1:])[0].host
        if host not in LOOPBACK:
            cure = "give --host 127.0.0.1, and reach it from other machines through an SSH tunnel"
            raise ProPLError(f"--host {host}", "would let other machines in without a password", cure)
