"""Networks of other libraries: the same encoder where it fits, a channel per task, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ABOUT, TINY_ENCODER
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from propl_monai.deploy.export import export
from propl_monai.errors import ProPLError
from propl_monai.model.encoder import VisionEncoder
from propl_monai.model.networks import library
from propl_monai.model.networks.library import BOUND_TO_SIZE, MODELS, LibraryNetwork
from propl_monai.model.weights import load_network, save_weights, start_from

TASKS = ["left atrium", "fetal head"]
OWN_ENCODER = ("swin_unetr", "dynunet")
every_model = pytest.mark.parametrize("name", MODELS)
with_our_encoder = pytest.mark.parametrize("name", [name for name in MODELS if name not in OWN_ENCODER])


def make(name: str, **options: Any) -> LibraryNetwork:
    torch.manual_seed(0)
    return LibraryNetwork(name, TINY_ENCODER, **options)


def image(count: int = 2) -> Tensor:
    return torch.rand(count, 1, 72, 65, generator=torch.Generator().manual_seed(1))


@every_model
def test_it_learns_and_comes_back(name: str, tmp_path: Path) -> None:
    """Every parameter has a gradient, though a batch names two of the tasks; a batch of one image trains as well."""
    network = make(name, tasks=TASKS).train()
    logits = network(image(), task=TASKS)
    logits.square().mean().backward()
    assert logits.shape == (2, 1, 72, 65)
    assert [key for key, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())] == []
    assert bool(network(image(1), task=TASKS[0]).isfinite().all())
    save_weights(network.eval(), tmp_path, ABOUT)
    found, header = load_network(tmp_path / "model.safetensors")
    assert header["architecture"]["library_model"] == name
    assert header["architecture"]["encoder"] == ("none" if name in OWN_ENCODER else TINY_ENCODER)
    with torch.no_grad():
        assert torch.equal(found(image(), task=TASKS), network(image(), task=TASKS))


@every_model
def test_each_task_has_a_channel(name: str) -> None:
    """Two tasks of one image differ, one encoding serves both, and `features` say their widths."""
    network = make(name).eval()
    with torch.no_grad():
        features = network.features(image())
        each = [network.logits(features, task) for task in TASKS]
        both = network(image(), task=TASKS)
    assert tuple(one.shape[1] for one in features[:4]) == network.widths
    torch.testing.assert_close(both, torch.stack([each[0][0], each[1][1]]), rtol=1e-4, atol=1e-4)
    assert (each[0] - each[1]).abs().max() > 1e-4


@every_model
@pytest.mark.parametrize("size", [(17, 9), (32, 32), (33, 64), (100, 100)])
def test_any_size_will_do(name: str, size: tuple[int, int]) -> None:
    """Small ones, which leave one position at the deepest place, and sides that no stride divides."""
    network, pictures = make(name, tasks=TASKS).train(), torch.rand(2, 1, *size)
    network(pictures, task=TASKS).square().mean().backward()
    with torch.no_grad():
        found = network.eval()(pictures[:1], task=TASKS[0])
    assert found.shape == (1, 1, *size) and bool(found.isfinite().all())


@every_model
def test_it_validates_pictures_with_a_header(name: str) -> None:
    """As MONAI's transforms give them in validation."""
    network = make(name).eval()
    with torch.no_grad():
        found = network(MetaTensor(image()), task=TASKS)
        assert isinstance(found, MetaTensor) and torch.equal(found.as_tensor(), network(image(), task=TASKS))


@with_our_encoder
def test_its_encoder_takes_the_weights_of_ours(name: str, tmp_path: Path) -> None:
    """Also where it is dilated: tensor by tensor the same names and shapes."""
    ours = VisionEncoder(TINY_ENCODER).backbone.state_dict()
    torch.save(ours, tmp_path / "encoder.pt")
    network = make(name)
    start_from(network, str(tmp_path / "encoder.pt"))
    theirs = network.get_submodule("encoder.backbone").state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)


@pytest.mark.parametrize("name", OWN_ENCODER)
def test_pretrained_weights_for_an_encoder_of_its_own_are_refused(name: str) -> None:
    with pytest.raises(ProPLError, match="network 'library' has no encoder that takes them; set it to none"):
        start_from(make(name), "package")
    first, second = make(name), make(name).another()
    assert not all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_dilation_keeps_the_strides_of_the_papers() -> None:
    sizes = {}
    for name in ("deeplabv3plus", "pspnet", "unet"):
        with torch.no_grad():
            sizes[name] = [one.shape[-1] for one in make(name).eval().features(torch.rand(1, 1, 64, 64))[:4]]
    assert sizes == {"deeplabv3plus": [16, 8, 4, 4], "pspnet": [16, 8, 8, 8], "unet": [16, 8, 4, 2]}


def test_a_change_reaches_every_map() -> None:
    """As when a method takes rows of a batch: the maps before v1 are decoded as well."""
    network = make("unet").eval()
    with torch.no_grad():
        features = network.features(image())
        last = network.logits(features.changed(lambda maps: maps[1:]), TASKS[1])
        torch.testing.assert_close(last, network.logits(features, TASKS)[1:], rtol=1e-4, atol=1e-4)
    assert len(features.finer) == 1


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProPLError, match="library_model: unknown network of a library 'unett'"):
        LibraryNetwork("unett", TINY_ENCODER)
    with pytest.raises(ProPLError, match="encoder 'nonsense': does not fit Unet"):
        LibraryNetwork("unet", "nonsense")
    with pytest.raises(ProPLError, match="reads no sentences"):
        LibraryNetwork("unet", TINY_ENCODER, prompts="bank.safetensors")

    def missing(package: str) -> Any:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(library, "import_module", missing)
    with pytest.raises(ProPLError, match=r"segmentation_models_pytorch: is not installed; .*\[networks\]"):
        LibraryNetwork("unet", TINY_ENCODER)


@pytest.mark.parametrize("name", BOUND_TO_SIZE)
def test_an_export_that_would_fix_the_size_is_refused(name: str, tmp_path: Path) -> None:
    save_weights(make(name).eval(), tmp_path, ABOUT)
    with pytest.raises(ProPLError, match=r"export: network 'library' .* layout follows the image's size"):
        export(tmp_path, tmp_path / "net.onnx")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in MODELS if name not in (*BOUND_TO_SIZE, "dynunet")])  # takes minutes
def test_onnx(name: str, tmp_path: Path) -> None:
    save_weights(make(name).eval(), tmp_path, {**ABOUT, "spatial_size": [64, 64]})
    record = export(tmp_path, tmp_path / "net.onnx")
    assert record["parity"]["mask_disagreement"] <= record["parity"]["limit_of_disagreement"]
