"""`from propl_monai import …`, and the paths that configs written before the rooms name in their `_target_`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from monai.bundle import ConfigParser

import propl_monai
from propl_monai.data.transforms import TrainingViews

# As the released configs of version 0.1.0 named them, and what they stand for.
OLD_TARGETS = {
    "propl_monai.cohort.training_cohort": "training_cohort",
    "propl_monai.evaluate.CaseTable": "CaseTable",
    "propl_monai.handlers.TrainingLog": "TrainingLog",
    "propl_monai.keeper.KeepCheckpoints": "KeepCheckpoints",
    "propl_monai.loaders.PairedLoader": "PairedLoader",
    "propl_monai.methods.ProPLMethod": "ProPLMethod",
    "propl_monai.network.ProPL": "ProPL",
    "propl_monai.predict.SavePredictions": "SavePredictions",
    "propl_monai.trainer.SemiSupervisedTrainer": "SemiSupervisedTrainer",
    "propl_monai.validation.ValidationDice": "ValidationDice",
}


def located(target: str) -> object:
    return ConfigParser({"it": {"_target_": target, "_mode_": "callable"}}).get_parsed_content("it")


@pytest.mark.parametrize("name", propl_monai.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(propl_monai, name) is not None


@pytest.mark.parametrize(("old", "name"), OLD_TARGETS.items())
def test_an_old_target_is_found_by_monai(old: str, name: str) -> None:
    assert located(old) is located(f"propl_monai.{name}") is getattr(propl_monai, name)


def test_old_modules_keep_their_functions() -> None:
    assert propl_monai.transforms.TrainingViews is TrainingViews
    assert propl_monai.ranks.is_writer() is True


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Propl'"):
        _ = propl_monai.Propl


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, propl_monai; print(propl_monai.TASKS[0].name, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
