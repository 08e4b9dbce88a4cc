"""The checks of the MONAI model zoo that run a bundle: its network, its weights, and its workflows on phantoms."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out

from propl_monai.common.findings import Finding
from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.errors import find_cause, first_line
from propl_monai.model.weights import WEIGHTS, load_weights

logger = logging.getLogger(__name__)


def rehearse(folder: Path | str) -> list[Finding]:
    """Run the bundle with the installed package, which must be the one that the folder holds.

    Its configs are programs: rehearse only a bundle that you trust.

    Args:
        folder: of a bundle in which `zoo_checks.check_files` found nothing.
    """
    folder = Path(folder)
    found: list[Finding] = []
    for code, check in (("network", _network), ("weights", _weights), ("properties", _properties)):
        try:
            found += check(folder)
        except Exception as error:  # a config can raise anything
            logger.debug("%s of %s", code, folder, exc_info=error)
            fact = str(find_cause(error) or first_line(error))
            found.append(Finding(code, folder.name, fact, "correct its configs, or give other weights"))
    return found


def _network(folder: Path) -> list[Finding]:
    """Raises an error if the shapes and types of input and output differ from those of the metadata."""
    metadata = str(folder / "configs" / "metadata.json")
    verify_net_in_out("network_def", meta_file=metadata, config_file=_config(folder, "inference"), device="cpu")
    return []


def _weights(folder: Path) -> list[Finding]:
    """Raises an error if the weights do not fit the network or the preprocessing of a config."""
    for name in ("inference", "train"):
        parser = ConfigParser()
        parser.read_config(_config(folder, name))
        network: Any = parser.get_parsed_content("network_def")
        expected = {key: parser.get_parsed_content(key) for key in ("spatial_size", "normalisation")}
        load_weights(network, folder / "models" / WEIGHTS, expected)
    return []


def _properties(folder: Path) -> Iterator[Finding]:
    """Properties that MONAI's tools need in a training and an inference workflow, and that the configs lack."""
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
            for lacking in workflow.check_properties() or []:
                fact = f"has no property '{lacking}', or under another id"
                yield Finding("properties", f"configs/{name}.json", fact, "add it")


def _config(folder: Path, name: str) -> str:
    return str(folder / "configs" / f"{name}.json")
