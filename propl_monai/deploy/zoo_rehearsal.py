"""The checks of a bundle folder that run it: its network on made-up input, its weights, its workflows on phantoms."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out

from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.deploy.zoo_checks import Finding
from propl_monai.errors import find_cause, first_line
from propl_monai.model.weights import FLAT_WEIGHTS, WEIGHTS, load_weights

logger = logging.getLogger(__name__)


def rehearse(folder: Path | str) -> list[Finding]:
    """Do what the zoo's checks do with a bundle, by the installed package, which must be what the folder holds.

    Its configs are programs: rehearse only a bundle that you trust.

    Args:
        folder: of a bundle that `premerge` has no findings about.
    """
    folder = Path(folder)
    found: list[Finding] = []
    for check, step in (("network", _network), ("weights", _weights), ("properties", _properties)):
        try:
            found += [Finding(check, message) for message in step(folder)]
        except Exception as error:  # whatever the parts of a config raise is what this check is for
            logger.debug("%s of %s", check, folder, exc_info=error)
            found.append(Finding(check, str(find_cause(error) or first_line(error))))
    return found


def _network(folder: Path) -> list[str]:
    """Raises where sizes and types are not those of the metadata."""
    metadata = str(folder / "configs" / "metadata.json")
    verify_net_in_out("network_def", meta_file=metadata, config_file=_config(folder, "inference"), device="cpu")
    return []


def _weights(folder: Path) -> list[str]:
    """Raises where a weights file does not fit the network of a config, or what the config does to its images."""
    for name in ("inference", "train"):
        parser = ConfigParser()
        parser.read_config(_config(folder, name))
        network: Any = parser.get_parsed_content("network_def")
        expected = {key: parser.get_parsed_content(key) for key in ("spatial_size", "normalisation")}
        for file in (WEIGHTS, FLAT_WEIGHTS):
            load_weights(network, folder / "models" / file, expected)
    return []


def _properties(folder: Path) -> list[str]:
    """Properties that MONAI's tools ask of a training and of an inference, and that the configs do not have."""
    missing = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "phantoms"
        write_phantoms(data, cases_per_task=12, size=64)
        train = {"dataset_dir": str(data), "model_dir": f"{scratch}/models", "encoder_weights": "none"}
        inference = {"dataset_dir": str(data / "TN" / "PHANTOM" / "images")}
        for name, kind, options in (("train", "train", train), ("inference", "infer", inference)):
            workflow = ConfigWorkflow(
                config_file=_config(folder, name),
                workflow_type=kind,
                logging_file=False,
                bundle_root=str(folder),
                output_dir=f"{scratch}/run",
                **options,
            )
            workflow.initialize()
            lacking = workflow.check_properties() or []
            missing += [f"configs/{name}.json has no property '{one}', or under another id" for one in lacking]
    return missing


def _config(folder: Path, name: str) -> str:
    return str(folder / "configs" / f"{name}.json")
