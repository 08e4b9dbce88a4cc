"""MONAI's own checks of a bundle, offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bundle_tools import BUNDLE
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out

import propl_monai

SCHEMA = Path(propl_monai.__file__).parent / "deploy" / "meta_schema_20240725.json"
METADATA = str(BUNDLE / "configs" / "metadata.json")
PRESETS = (("inference",), ("inference", "compact"))


def files(names: tuple[str, ...]) -> list[str]:
    return [str(BUNDLE / "configs" / f"{name}.json") for name in names]


def test_metadata_fits_the_schema(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    shutil.copy(SCHEMA, schema)
    verify_metadata(meta_file=METADATA, filepath=str(schema))


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    shutil.copy(SCHEMA, schema)
    content = json.loads(Path(METADATA).read_text())
    del content["task"]
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(broken), filepath=str(schema))


@pytest.mark.parametrize("names", PRESETS, ids="+".join)
def test_network_gives_what_the_metadata_promise(names: tuple[str, ...]) -> None:
    verify_net_in_out(net_id="network_def", meta_file=METADATA, config_file=files(names), device="cpu")


@pytest.mark.parametrize("names", [("train",), ("train", "compact")], ids="+".join)
def test_no_property_of_training_is_missing(names: tuple[str, ...], phantom_folder: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(phantom_folder), "output_dir": str(tmp_path), "model_dir": str(tmp_path / "models")}
    assert not missing_properties("train", names, **options, encoder_weights="none")


def test_no_property_of_inference_is_missing(trained: Path, phantom_folder: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(phantom_folder / "BC" / "PHANTOM" / "images"), "output_dir": str(tmp_path)}
    weights = str(trained / "models" / "model.safetensors")
    assert not missing_properties("infer", PRESETS[1], **options, weights=weights, spatial_size=[32, 32])


def missing_properties(kind: str, names: tuple[str, ...], **options: object) -> list[str]:
    workflow = ConfigWorkflow(
        config_file=files(names), meta_file=METADATA, workflow_type=kind, bundle_root=str(BUNDLE), **options
    )
    workflow.initialize()
    return workflow.check_properties()


def test_torchscript_export(trained: Path, tmp_path: Path) -> None:
    """Tracing, as the task is text; the default task is in the trace."""
    script = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(script),
        ckpt_file=str(trained / "models" / "model.pt"),
        meta_file=METADATA,
        config_file=files(("inference", "compact")),
        key_in_ckpt="",
        use_trace=True,
        input_shape=[1, 1, 64, 64],
    )
    traced = torch.jit.load(str(script))
    from propl_monai.model.weights import load_network

    network, _ = load_network(trained / "models" / "model.safetensors")
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = network(image, task="thyroid nodule")
        torch.testing.assert_close(traced(image), expected, atol=1e-4, rtol=1e-4)


def test_flat_weights_are_tensors_only(trained: Path) -> None:
    state = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert "prompts.bank.embeddings" in state
