"""One network for many ultrasound targets, selected by a text prompt, trained from few labels (ProPL, AAAI 2026).

The public names below are imported on first use. The rooms, in the order in which they may import one another:
errors, tasks → common → images → data → datasets, model → training, inference → evaluation, deploy → cli.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "propl_monai.errors": ("ProPLError",),
    "propl_monai.tasks": ("TASKS",),
    "propl_monai.images": ("read_image", "read_frames"),
    "propl_monai.data.datalist": ("Case", "Datalist"),
    "propl_monai.data.loaders": ("DrawnDataset", "PairedLoader"),
    "propl_monai.datasets.cohort": ("open_datalist", "training_cohort"),
    "propl_monai.model.network": ("ProPL",),
    "propl_monai.model.networks.clip_universal": ("ClipUniversal",),
    "propl_monai.model.networks.dodnet": ("DoDNet",),
    "propl_monai.model.networks.film": ("Film",),
    "propl_monai.model.networks.vclipseg": ("VCLIPSeg",),
    "propl_monai.model.networks.versemi": ("VerSemi",),
    "propl_monai.model.networks.meduniseg": ("MedUniSeg",),
    "propl_monai.model.networks.meduniseg_star": ("MedUniSegStar",),
    "propl_monai.model.networks.uniseg": ("UniSeg",),
    "propl_monai.model.networks.library": ("LibraryNetwork",),
    "propl_monai.model.prompts": ("PromptBank",),
    "propl_monai.model.released": ("from_released",),
    "propl_monai.training.methods": (
        *(
            "AugSegMethod",
            "BCPMethod",
            "CPSMethod",
            "DeepSupervisionMethod",
            "FixMatchMethod",
            "MeanTeacherMethod",
            "MedUniSegStarMethod",
            "ProPLMethod",
            "ProPLViewsMethod",
        ),
        *("STPPMethod", "SupervisedMethod", "UniMatchMethod", "VCLIPSegMethod", "VerSemiMethod"),
        *(
            "STPPMethod",
            "SupervisedMethod",
            "UniMatchMethod",
            "UniMatchV2Method",
            "CSCPAMethod",
            "UnivFullMethod",
            "DDFPMethod",
            "U2PLMethod",
        ),
    ),
    "propl_monai.training.trainer": ("SemiSupervisedTrainer",),
    "propl_monai.training.validation": ("EveryDecoder", "ValidationDice"),
    "propl_monai.training.checkpoints": ("KeepCheckpoints",),
    "propl_monai.training.rounds": ("DecayInRounds", "Rounds"),
    "propl_monai.training.records": ("RecordRun", "TrainingLog"),
    "propl_monai.inference.predictor": ("Predictor",),
    "propl_monai.inference.prediction": ("Prediction",),
    "propl_monai.inference.measurements": ("measure",),
    "propl_monai.inference.cines.predict_cine": ("predict_cine",),
    "propl_monai.inference.inferer": ("PromptInferer",),
    "propl_monai.inference.bundle_handlers": ("InputImages", "SavePredictions"),
    "propl_monai.inference.postprocess": ("Probabilitiesd", "RestoreSized", "ViewerMask"),
    "propl_monai.evaluation.case_table": ("CaseTable",),
}
# Modules that configs written before the rooms name in their `_target_`, and where they are now.
_OLD_MODULES = {
    "cohort": "datasets.cohort",
    "evaluate": "evaluation.case_table",
    "handlers": "training.records",
    "keeper": "training.checkpoints",
    "loaders": "data.loaders",
    "methods": "training.methods",
    "network": "model.network",
    "predict": "inference.bundle_handlers",
    "ranks": "common.ranks",
    "trainer": "training.trainer",
    "transforms": "data.transforms",
    "validation": "training.validation",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    # Lazy, so that `propl info` and tools that only read datalists do not wait for torch.
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if name in _OLD_MODULES:
        return import_module(f"propl_monai.{_OLD_MODULES[name]}")
    raise AttributeError(f"module 'propl_monai' has no attribute '{name}'")
