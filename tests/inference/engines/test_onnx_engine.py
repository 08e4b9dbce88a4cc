"""ONNX Runtime against torch: the same maps and masks, from a file that holds no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import ABOUT, small_network, speckle
from safetensors.numpy import load_file, save_file

from propl_monai import Predictor
from propl_monai.deploy.onnx_graph import require_equal
from propl_monai.errors import ProPLError
from propl_monai.images import Picture
from propl_monai.inference.engines.graph_file import find_graph
from propl_monai.inference.engines.onnx_engine import OnnxEngine
from propl_monai.model.bundle_folder import Described, describe_bundle
from propl_monai.model.weights import save_safetensors

TWO = ["left atrium", "thyroid nodule"]


@pytest.fixture(scope="module")
def both(described: Described) -> tuple[Predictor, Predictor]:
    """By ONNX Runtime and by torch."""
    onnx, by_torch = (Predictor(described, engine=name) for name in ("onnx", "torch"))
    assert (onnx.engine_of(), by_torch.engine_of()) == ("onnx", "torch")
    return onnx, by_torch


def test_the_file_holds_no_weights(described: Described) -> None:
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    state = load_file(described.weights)
    assert set(graph.tensors) < set(state) and any(name.startswith("decoder_pd.") for name in graph.tensors)
    assert len(graph.content) < 0.2 * described.weights.stat().st_size
    kernel = max((value for name, value in state.items() if name in graph.tensors), key=lambda value: value.nbytes)
    assert kernel.tobytes() not in graph.content


@pytest.mark.parametrize("tta", [False, True])
def test_maps_are_those_of_torch(described: Described, tta: bool) -> None:
    """On the same grid, for several pictures and tasks at once; each picture is encoded once for its tasks."""
    onnx, by_torch = (Predictor(described, engine=name, tta=tta) for name in ("onnx", "torch"))
    pictures = [Picture(speckle(40, 61, seed)) for seed in range(9)]
    prepared = [by_torch.prepare(picture) for picture in pictures]
    wanted = by_torch.maps(prepared, TWO).numpy()
    found = onnx._engine.answer([one.image.numpy() for one in prepared], TWO, False)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(40, 61), (7, 9), (150, 20)])
def test_masks_are_those_of_torch_but_for_the_edge(both: tuple[Predictor, Predictor], size: tuple[int, int]) -> None:
    onnx, by_torch = both
    for one, other in zip(onnx(speckle(*size), TWO), by_torch(speckle(*size), TWO), strict=True):
        assert one.mask.shape == size and one.probability.dtype == np.float32
        assert np.abs(one.probability - other.probability).max() < 0.02  # a grey level is rounded to the other side
        assert (one.mask != other.mask).mean() < 0.01 and 0.02 < other.mask.mean() < 0.98


@pytest.mark.parametrize("threshold", [0.5, 0.03, 0.9])
@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_masks_alone_are_those_of_the_probabilities(described: Described, name: str, threshold: float) -> None:
    """In every pixel, for pictures larger and smaller than the grid, and for smooth maps as a trained network gives them."""
    predictor = Predictor(described, engine=name, threshold=threshold)
    coarse = np.random.default_rng(0).normal(0, 4, (2, 5, 6)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None], predictor.spatial_size, mode="bicubic")[0]
    for size in ((150, 170), (20, 15), (7, 150)):
        prepared = predictor.prepare(Picture(speckle(*size)))
        for maps in (predictor.maps([prepared], TWO)[0], smooth if name == "torch" else smooth.numpy()):
            alone = predictor.finish(prepared, maps, TWO, masks_alone=True)
            for one, other in zip(alone, predictor.finish(prepared, maps, TWO), strict=True):
                assert one.task == other.task and one.probability.size == 0 and np.array_equal(one.mask, other.mask)
        assert 0 < sum(one.mask.mean() for one in alone) < 2


def test_half_precision_and_other_prompts(described: Described, tmp_path: Path) -> None:
    """The graph is filled with float32, whatever the weights hold, and takes any text."""
    network = small_network()
    assert network.prompts is not None
    network.attach_prompts(network.prompts.bank, "onehot", "released")
    save_safetensors(network, tmp_path / "model.safetensors", ABOUT, half=True)
    halved = describe_bundle(tmp_path)
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    by_torch = Predictor(halved, engine="torch")
    prepared = by_torch.prepare(Picture(speckle(32, 32)))
    found, pooled = OnnxEngine(halved, graph, tta=False).answer([prepared.image.numpy()], TWO, False)
    wanted, wanted_pooled = by_torch._by_torch.answer([prepared.image], TWO, False)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(pooled, wanted_pooled, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("mode", "padding"), [("text", "zero"), ("text", "released"), ("learned", "zero"), ("none", "zero")]
)
def test_texts_are_those_of_the_prompts(described: Described, tmp_path: Path, mode: str, padding: str) -> None:
    network = small_network()
    assert network.prompts is not None
    network.attach_prompts(network.prompts.bank, mode, padding)
    save_safetensors(network, tmp_path / "model.safetensors", ABOUT)
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    engine = OnnxEngine(describe_bundle(tmp_path), graph, tta=False)
    assert np.array_equal(engine._texts, network.prompts.table().detach().numpy())


@pytest.fixture
def altered(described: Described, tmp_path: Path) -> Any:
    """Writes the weights with other tensors or header entries; a tensor of None is left out."""

    def write(tensors: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> Described:
        state = {**load_file(described.weights), **(tensors or {})}
        state = {name: value for name, value in state.items() if value is not None}
        text = json.dumps({**described.header, **(header or {})})
        save_file(state, tmp_path / "model.safetensors", {"propl": text})
        return describe_bundle(tmp_path / "model.safetensors")

    return write


@pytest.mark.parametrize(
    ("value", "header", "said"),
    [
        (np.full((), np.nan, np.float32), {}, r"holds 1 tensors with NaN or infinity, first 'decoder_pd\.stage4"),
        (None, {}, "does not hold what its ONNX form needs"),
        (np.zeros((3, 3), np.float32), {}, "cannot be run"),
        (np.zeros((), np.float32), {"prompt_bank_sha256": "0" * 64}, "holds other prompts than its header says"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    described: Described, altered: Any, value: Any, header: dict[str, Any], said: str
) -> None:
    name = "decoder_pd.stage4.attention.scale"
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    wide = graph._replace(tensors=sorted({*graph.tensors, name}))
    with pytest.raises(ProPLError, match=said):
        OnnxEngine(altered({name: value}, header), wide, tta=False)


def test_a_graph_that_differs_is_not_kept(described: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = find_graph(described.weights, described.weights_sha256)
    assert graph is not None
    monkeypatch.setattr(OnnxEngine, "run", lambda self, images, rows, numbers: (np.zeros_like(images), None))
    with pytest.raises(ProPLError, match=r"ONNX form of .*: would differ .* over 30 images.* not kept"):
        require_equal(described, small_network(), graph)


def test_threads_of_the_process_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    from propl_monai.inference.engines.onnx_engine import _threads

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    for named, wanted in (("2", 2), ("8", 3), ("", 3), ("0", 3), ("many", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", named)
        assert _threads() == wanted
    assert torch.get_num_threads() == 1  # of the tests, for comparison
