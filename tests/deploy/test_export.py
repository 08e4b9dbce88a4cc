"""Exported files: equal to their network at any batch and size, and silent about nothing."""

from __future__ import annotations

import copy
import json
import math
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import TINY_ENCODER, write_small_bundle
from timm.layers import Conv2dSame
from torch import Tensor

from propl_monai.common.files import file_sha256
from propl_monai.deploy import export as exporter
from propl_monai.deploy.export import export
from propl_monai.deploy.exportable import ExportableNetwork, fix_padding, take_grey
from propl_monai.deploy.parity import Runner, compare, onnx_runner, parity_inputs, program_runner, require_parity
from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network, save_weights
from propl_monai.tasks import NAMES

ABOUT = {"preset": "test", "spatial_size": [64, 32], "normalisation": "half"}


@pytest.fixture(scope="module")
def small() -> ProPL:
    """A network of a few hundred thousand numbers that has chosen decoder pd. Read it, do not change it."""
    torch.manual_seed(0)
    network = ProPL(TINY_ENCODER).eval()
    network.choose_decoder("pd")
    return network


@pytest.fixture(scope="module")
def bundle(small: ProPL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small network's weights in `models`."""
    folder = tmp_path_factory.mktemp("bundle")
    save_weights(small, folder / "models", ABOUT)
    return folder


@dataclass
class Made:
    """An exported file, what was recorded of it, the decoder inside, and how to run it."""

    path: Path
    record: dict[str, Any]
    decoder: str
    run: Runner


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def made(request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "onnx":
        path = folder / "small.onnx"
        return Made(path, export(bundle, path), "pd", onnx_runner(path))
    path = folder / "small.pt2"
    return Made(path, export(bundle, path, "pt2", "mean"), "mean", program_runner(path))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 32), (3, 50, 77), (2, 96, 31)])
def test_any_batch_and_size_gives_the_logits_of_the_network(
    made: Made, small: ProPL, batch: int, height: int, width: int
) -> None:
    image = torch.randn(batch, 1, height, width, generator=torch.Generator().manual_seed(5))
    names = ["thyroid nodule", "breast cancer", "left atrium"][:batch]
    with torch.no_grad():
        wanted = small(image, task=names, decoder=made.decoder)
    found = made.run(image, torch.tensor([7, 0, 2][:batch]))
    assert found.shape == (batch, 1, height, width)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_the_number_chooses_the_task(made: Made) -> None:
    image = torch.randn(1, 1, 64, 32, generator=torch.Generator().manual_seed(6)).repeat(2, 1, 1, 1)
    first, second = made.run(image, torch.tensor([0, 5]))
    assert (first - second).abs().max() > 1e-3
    with pytest.raises(Exception, match=r"(?i)out of|bounds"):
        made.run(image, torch.tensor([0, 8]))


def test_the_parity_is_written_beside_the_file(made: Made, bundle: Path) -> None:
    written = json.loads(made.path.with_name(made.path.name + ".parity.json").read_text())
    assert written == made.record
    assert written["parity"]["inputs"] == 50
    assert written["parity"]["sizes"] == [[64, 32], [101, 37], [32, 64]]
    assert written["parity"]["largest_logit_difference"] <= 1e-4
    assert written["parity"]["largest_probability_difference"] <= written["parity"]["limit_of_difference"] == 1e-4
    assert written["parity"]["mask_disagreement"] <= 1e-4
    assert written["sha256"] == file_sha256(made.path)
    assert written["weights_sha256"] == file_sha256(bundle / "models" / "model.safetensors")
    assert {"torch", "timm", "onnxruntime"} <= written["versions"].keys()
    assert sorted(path.name for path in made.path.parent.iterdir()) == [made.path.name, made.path.name + ".parity.json"]


def test_the_file_says_what_it_is(made: Made) -> None:
    if made.record["format"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
        told = json.loads(session.get_modelmeta().custom_metadata_map["propl"])
        shapes = {one.name: (one.type, one.shape) for one in session.get_inputs()}
        assert shapes["task"] == ("tensor(int64)", ["batch"])
        assert shapes["image"] == ("tensor(float)", ["batch", 1, "height", "width"])
    else:
        with zipfile.ZipFile(made.path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("extra/propl.json")]
            told = json.loads(archive.read(name))
    assert told["tasks"] == list(NAMES)
    assert told["prompts"][7] == "Segment the thyroid nodule in the ultrasound image."
    assert (told["decoder"], told["spatial_size"]) == (made.decoder, [64, 32])
    assert (told["normalisation"], told["mean"], told["deviation"]) == ("half", 0.5, 0.5)


@pytest.mark.parametrize("decoder", [None, "sd", "mean"])
def test_weights_with_one_decoder(bundle: Path, small: ProPL, tmp_path: Path, decoder: str | None) -> None:
    path, source = tmp_path / "small.safetensors", bundle / "models" / "model.safetensors"
    record = export(bundle, path, decoder=decoder)
    network, header = load_network(path)
    kept = decoder or "pd"
    assert network.decoders == (("sd", "pd") if kept == "mean" else (kept,)) and network.chosen_decoder == kept
    assert {key: header[key] for key in ABOUT} == ABOUT and header["full_weights_sha256"] == file_sha256(source)
    assert (record["format"], record["decoder"], record["opset"]) == ("safetensors", kept, None)
    assert record["parity"]["largest_logit_difference"] == record["parity"]["limit_of_difference"] == 0
    assert record["parity"]["inputs"] == 50 and record["sha256"] == file_sha256(path)
    whole, without = source.stat().st_size, sum(p.numel() * 4 for p in small.decoder_sd.parameters())
    assert path.stat().st_size < (whole if kept == "mean" else whole - without) + 300
    if kept == "pd":
        again = export(path, tmp_path / "again.safetensors")
        assert load_network(tmp_path / "again.safetensors")[1] == header and again["sha256"] == record["sha256"]
        with pytest.raises(ProPLError, match="decoder 'sd': these weights hold decoder pd alone"):
            export(path, tmp_path / "x.pt2", decoder="sd")


def test_weights_with_one_decoder_must_give_the_same_bits(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporter.safetensors_runner

    def wrong(path: Path) -> Runner:
        run = right(path)
        return lambda image, task: run(image, task) + 1e-6

    monkeypatch.setattr(exporter, "safetensors_runner", wrong)
    with pytest.raises(ProPLError, match=r"in a logit .* where 0e\+00 and 1e-04 are allowed, so it was not kept"):
        export(bundle, tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_weights_are_not_overwritten_by_their_export(bundle: Path) -> None:
    source = bundle / "models" / "model.safetensors"
    before = file_sha256(source)
    with pytest.raises(ProPLError, match="is the file that is exported; choose another name"):
        export(bundle, source)
    assert file_sha256(source) == before


def test_a_file_that_differs_is_not_kept(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(path: Path) -> Runner:
        return lambda image, task: torch.zeros_like(image)

    monkeypatch.setattr(exporter, "_write_program", lambda network, path, about: path.touch())
    monkeypatch.setattr(exporter, "program_runner", wrong)
    with pytest.raises(ProPLError, match=r"small\.pt2: would differ .* over 50 images.* not kept"):
        export(bundle, tmp_path / "small.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shift", "largest", "share"), [(0.0, 0.0, 0.0), (0.25, 0.25, 0.0), (-2.0, 2.0, 0.5)])
def test_parity_by_hand(small: ProPL, shift: float, largest: float, share: float) -> None:
    """Logits of 1 on the left half and 3 on the right, moved by `shift`."""

    class Halves(ProPL):
        def forward(self, image: Tensor, *_: Any, **__: Any) -> Tensor:
            return torch.cat((torch.ones(1, 1, 4, 2), 3 * torch.ones(1, 1, 4, 2)), dim=3)

    halves = copy.copy(small)
    halves.__class__ = Halves
    inputs = [(torch.zeros(1, 1, 4, 4), torch.tensor([0]))]
    found = compare(halves, lambda image, task: halves(image) + shift, inputs)
    assert found["largest_logit_difference"] == pytest.approx(largest)
    moved = [abs(1 / (1 + math.exp(-x - shift)) - 1 / (1 + math.exp(-x))) for x in (1, 3)]
    assert found["largest_probability_difference"] == pytest.approx(max(moved), abs=1e-6)
    assert found["mask_disagreement"] == share
    assert (found["inputs"], found["sizes"]) == (1, [[4, 4]])


@pytest.mark.parametrize(("shift", "kept"), [(2e-4, True), (2e-3, False)])
def test_probabilities_and_masks_decide(small: ProPL, shift: float, kept: bool) -> None:
    """At a logit near 0 a shift moves a probability by a quarter of it; near 30 by nothing."""
    inputs = [(torch.zeros(1, 1, 32, 32), torch.tensor([0]))]

    def run(image: Tensor, task: Tensor) -> Tensor:
        return small(image, task=task) + shift

    with torch.no_grad():
        found = compare(small, run, inputs)
    assert found["largest_logit_difference"] == pytest.approx(shift, rel=0.01)
    found["mask_disagreement"] = 0.0
    if kept:
        require_parity(Path("x.onnx"), found)
    else:
        with pytest.raises(ProPLError, match=r"differ .* by 5\.0e-04 in a probability"):
            require_parity(Path("x.onnx"), found)


def test_the_mean_of_certain_decoders_is_exported(small: ProPL, tmp_path: Path) -> None:
    """Weights trained for long have large logits; here they reach ±40, where probabilities round to 0 and 1."""
    certain = copy.deepcopy(small)
    image, _ = next(iter(parity_inputs(8, (64, 32), "half")))
    with torch.no_grad():
        for decoder in (certain.decoder_sd, certain.decoder_pd):
            last = [layer for layer in decoder.out.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
            logits = certain(image, task=["fetal head"], decoder="sd" if decoder is certain.decoder_sd else "pd")
            assert last.bias is not None
            middle, spread = logits.mean(), logits.abs().max()
            last.weight.mul_(40 / spread)
            last.bias.sub_(middle).mul_(40 / spread)
        assert certain(image, task=["fetal head"], decoder="sd").abs().max() > 20
    save_weights(certain, tmp_path, ABOUT)
    parity = export(tmp_path, tmp_path / "mean.onnx", decoder="mean")["parity"]
    assert parity["largest_probability_difference"] <= 1e-4 and parity["mask_disagreement"] <= 1e-4
    assert parity["largest_logit_difference"] < 5e-3  # 8.7e-2 before, by a logit of a mean of probabilities


def test_what_is_not_a_number_is_no_parity(small: ProPL) -> None:
    inputs = [(torch.zeros(1, 1, 32, 32), torch.tensor([0]))]
    found = compare(small, lambda image, task: torch.full_like(image, torch.nan), inputs)
    assert found["largest_logit_difference"] > 1e30 and found["largest_probability_difference"] > 1e30
    with pytest.raises(ProPLError, match="not kept"):
        require_parity(Path("x.onnx"), found)


def test_parity_is_measured_on_every_task_and_on_odd_sizes() -> None:
    inputs = list(parity_inputs(8, (64, 32), "half"))
    assert sum(len(image) for image, _ in inputs) == 50
    assert torch.cat([task for _, task in inputs]).tolist() == [number % 8 for number in range(50)]
    assert {len(image) for image, _ in inputs} == {1, 2, 3, 4}
    assert all(-1 <= image.min() < -0.5 and 0.5 < image.max() <= 1 for image, _ in inputs)
    again = list(parity_inputs(8, (64, 32), "half"))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(inputs, again, strict=True))


def test_fixed_padding_is_that_of_the_size(network: ProPL) -> None:
    """The compact encoder pads by TensorFlow's rule, which depends on the size; at multiples of 32 it does not."""
    encoder = copy.deepcopy(network.encoder)
    before = sum(isinstance(module, Conv2dSame) for module in encoder.modules())
    fix_padding(encoder)
    assert before == 5  # the strided ones
    assert not any(isinstance(module, Conv2dSame) for module in encoder.modules())
    for size in ((32, 96), (64, 64)):
        image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for found, wanted in zip(encoder(image)[:4], network.encoder(image)[:4], strict=True):
                torch.testing.assert_close(found, wanted)


def test_one_grey_channel_stands_for_three_equal_ones(network: ProPL) -> None:
    backbone = copy.deepcopy(network.encoder.backbone)
    assert take_grey(backbone)
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, wanted in zip(backbone(image), network.encoder.backbone(image.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not take_grey(backbone)  # it takes one already


def test_the_network_itself_is_left_as_it_is(small: ProPL) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    ExportableNetwork(small)
    assert all(parameter.requires_grad for parameter in small.encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(
    ("name", "format", "decoder", "said"),
    [
        ("a.onnx", "onxn", None, "unknown format 'onxn'; did you mean 'onnx'"),
        ("a.safetensor", None, None, "has no suffix of an export; end it in one of .onnx, .pt2, .safetensors"),
        ("a.pt2", "onnx", None, "has a suffix that is not one of onnx; end it in .onnx"),
        ("a.ts", None, None, "has no suffix of an export"),
        ("a.pt2", "torchscript", None, "unknown format 'torchscript'"),
        ("a.pt2", "pt2", "dp", "unknown decoder 'dp'"),
    ],
)
def test_wrong_options_are_named(
    bundle: Path, tmp_path: Path, name: str, format: str | None, decoder: str | None, said: str
) -> None:
    with pytest.raises(ProPLError, match=said):
        export(bundle, tmp_path / name, format, decoder)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_missing_or_do_not_say_their_size(small: ProPL, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"model\.safetensors"):
        export(tmp_path, tmp_path / "a.onnx")
    save_weights(small, tmp_path, {"preset": "test"})
    with pytest.raises(ProPLError, match=r"do not state .* the size and normalisation"):
        export(tmp_path, tmp_path / "a.onnx")


def test_an_encoder_that_torch_cannot_follow_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a branch on values\nand more")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(
        ProPLError, match=r"cannot be exported by torch.export \(a branch on values\); use --format onnx"
    ):
        export(bundle, tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_prompts_is_refused() -> None:
    with pytest.raises(ProPLError, match=r"no prompt bank; call attach_prompts"):
        ExportableNetwork(ProPL(TINY_ENCODER, prompts=False))


def test_a_missing_package_is_named(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ProPLError, match=r"onnxscript: is not installed; pip install 'propl-monai\[export\]'"):
        export(bundle, tmp_path / "a.onnx")


def test_images_of_one_cell_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_small_bundle(tmp_path / "bundle")  # of 32 × 32
    with pytest.raises(ProPLError, match=r"take images of \[32, 32\], whose height torch.export takes for a constant"):
        export(folder, tmp_path / "a.pt2")
