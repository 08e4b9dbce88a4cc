"""The network's public API, the decoder that it chooses, and its state dict."""

from __future__ import annotations

import copy
import doctest
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from propl_monai import ProPL, tasks
from propl_monai.errors import ProPLError
from propl_monai.model import network
from propl_monai.model.prompts import PROMPT_MODES, PromptBank
from propl_monai.training.methods.propl import ProPLMethod

COMPACT = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def net() -> ProPL:
    torch.manual_seed(0)
    return ProPL(COMPACT).eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def without_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_encode_then_decode_is_forward(net: ProPL, image: torch.Tensor) -> None:
    text = net.text("myocardium", 2)
    assert text.shape == (2, 24, 384) and text.dtype == torch.float32
    for decoder in ("sd", "pd"):
        logits = net.decode(net.encode(image), text, decoder=decoder)
        assert logits.shape == (2, 1, 64, 64)
        assert torch.equal(logits, net(image, task="myocardium", decoder=decoder))
        assert torch.equal(logits, net(image, text=text, decoder=decoder))


def test_a_task_may_be_named_once_or_for_each_image_or_numbered(net: ProPL, image: torch.Tensor) -> None:
    each = net(image, task=["left atrium", "thyroid nodule"])
    assert torch.equal(each, net(image, task=["LA", "TN"]))
    assert torch.equal(each, net(image, task=torch.tensor([2, 7])))
    torch.testing.assert_close(each[:1], net(image, task="left atrium")[:1])
    torch.testing.assert_close(each[1:], net(image, task="thyroid nodule")[1:])
    assert (net(image, task="left atrium") - net(image, task="thyroid nodule")).abs().max() > 1e-6


@pytest.mark.parametrize("size", [(33, 50), (64, 64), (31, 97)])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_size_of_the_input(net: ProPL, size: tuple[int, int], channels: int) -> None:
    assert net(torch.randn(1, channels, *size), task="FH").shape == (1, 1, *size)


def test_grey_equals_three_equal_channels(net: ProPL, image: torch.Tensor) -> None:
    assert torch.equal(net(image, task="FH"), net(image.expand(-1, 3, -1, -1), task="FH"))


def test_without_a_task(net: ProPL, image: torch.Tensor) -> None:
    with pytest.raises(ProPLError, match=r"task: none was given; give one of: breast cancer, .*thyroid nodule"):
        net(image)
    net.default_task = "fetal head"
    try:
        assert torch.equal(net(image), net(image, task="fetal head"))
    finally:
        net.default_task = None


def test_unknown_task_and_wrong_count(net: ProPL, image: torch.Tensor) -> None:
    with pytest.raises(ProPLError, match="unknown task 'left atrum'; did you mean 'left atrium'"):
        net(image, task="left atrum")
    with pytest.raises(ProPLError, match="3 tasks for 2 images"):
        net(image, task=["LA", "LV", "MD"])


def test_mean_is_the_mean_of_probabilities(net: ProPL, image: torch.Tensor) -> None:
    sd, pd, mean = (net(image, task="LV", decoder=name).sigmoid() for name in ("sd", "pd", "mean"))
    torch.testing.assert_close(mean, (sd + pd) / 2, rtol=0, atol=1e-6)
    assert (sd - pd).abs().max() > 1e-3  # two sets of weights


def test_mean_is_finite_where_both_are_certain(
    net: ProPL, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    certain = torch.tensor([[[[-200.0, 200.0]]]])
    monkeypatch.setattr(net.decoder_sd, "forward", lambda features, text: certain)
    monkeypatch.setattr(net.decoder_pd, "forward", lambda features, text: certain)
    mean = net(image[:1], task="LV", decoder="mean")
    assert mean.isfinite().all() and (mean.sigmoid().round() == torch.tensor([0.0, 1.0])).all()


def test_the_logit_of_a_mean_is_exact_where_probabilities_round_to_0_and_1() -> None:
    """Against the definition in float64 with the complement computed apart, for logits to ±60."""
    a, b = torch.meshgrid(torch.linspace(-60, 60, 121), torch.linspace(-60, 60, 121), indexing="ij")
    found, (sd, pd) = network.mean_logits(a, b), (a.double(), b.double())
    wanted = (sd.sigmoid() + pd.sigmoid()).log() - ((-sd).sigmoid() + (-pd).sigmoid()).log()
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-5)
    assert wanted[(found > 0) != (wanted > 0)].abs().max() < 1e-5  # between certain opposites
    assert network.mean_logits(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_unknown_decoder(net: ProPL, image: torch.Tensor) -> None:
    for call in (lambda: net(image, task="LV", decoder="means"), lambda: net.choose_decoder("means")):
        with pytest.raises(ProPLError, match="unknown decoder 'means'; did you mean 'mean'"):
            call()


def test_chosen_decoder_predicts_and_travels_in_the_state_dict(image: torch.Tensor) -> None:
    source, target = ProPL(COMPACT).eval(), ProPL(COMPACT).eval()
    assert source.chosen_decoder == "sd"
    for decoder in ("pd", "mean", "sd"):
        source.choose_decoder(decoder)
        target.load_state_dict(source.state_dict())
        assert target.chosen_decoder == decoder
        assert torch.equal(target(image, task="LA"), source(image, task="LA", decoder=decoder))


def test_without_a_bank(image: torch.Tensor) -> None:
    net = ProPL(COMPACT, prompts=False, text_shape=(5, 7)).eval()
    assert net(image, text=torch.randn(2, 5, 7)).shape == (2, 1, 64, 64)
    with pytest.raises(
        ProPLError, match=r"this network has no prompt bank; call attach_prompts\(bank\), or pass text="
    ):
        net(image, task="LA")
    with pytest.raises(ProPLError, match=r"has \(L, E\) = \(24, 384\), the decoders \(5, 7\)"):
        net.attach_prompts(PromptBank.load())
    bank = PromptBank(["left atrium"], ["…"], torch.randn(1, 5, 7), torch.ones(1, 5), "tiny", "0")
    net.attach_prompts(bank)
    assert torch.equal(net(image, task="LA"), net(image, text=bank().expand(2, -1, -1)))


def test_an_attached_bank_goes_where_the_network_is() -> None:
    net = ProPL(COMPACT, prompts=False).to("meta")
    net.attach_prompts(PromptBank.load())
    assert net.prompts is not None and net.prompts.bank.embeddings.device.type == "meta"


def test_a_bank_from_a_file(tmp_path: Path, image: torch.Tensor) -> None:
    bank = PromptBank(["left atrium"], ["…"], torch.randn(1, 5, 7), torch.ones(1, 5), "tiny", "0")
    bank.save(tmp_path / "bank.safetensors")
    net = ProPL(COMPACT, prompts=str(tmp_path / "bank.safetensors")).eval()
    assert net.text_shape == (5, 7) and torch.equal(net.text("LA", 1), bank())
    with pytest.raises(ProPLError, match="known: left atrium"):
        net(image, task="FH")


def test_state_dict_brings_its_bank_along() -> None:
    source, target = ProPL(COMPACT), ProPL(COMPACT)
    bank = PromptBank(["spleen"], ["Segment the spleen."], torch.randn(1, 24, 384), torch.ones(1, 24), "tiny", "0")
    source.attach_prompts(bank)
    target.load_state_dict(source.state_dict())
    assert target.prompts is not None and target.prompts.bank.sha256 == bank.sha256
    assert torch.equal(target.text("spleen", 1), bank())


@pytest.mark.parametrize("mode", PROMPT_MODES)
def test_state_dict_holds_tensors_only_and_loads_in_every_mode(mode: str, tmp_path: Path, image: torch.Tensor) -> None:
    source, target = ProPL(COMPACT, prompt_mode=mode).eval(), ProPL(COMPACT, prompt_mode=mode).eval()
    torch.save(source.state_dict(), tmp_path / "a.pt")
    target.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    assert torch.equal(target(image, task="LA"), source(image, task="LA"))


WITHOUT_TEXT_MODEL = """
import sys
import socket
sys.modules["transformers"] = sys.modules["tokenizers"] = None
socket.socket.connect = None
import torch
from propl_monai import ProPL
net = ProPL("tf_efficientnet_lite0", prompts=None).eval()
net.load_state_dict(torch.load(sys.argv[1], weights_only=True))
with torch.no_grad():
    torch.save(net(torch.ones(1, 1, 32, 32), task="LA"), sys.argv[2])
"""


def test_checkpoint_loads_and_predicts_without_transformers(net: ProPL, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "a.pt")
    files = [str(tmp_path / "a.pt"), str(tmp_path / "logits.pt")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TEXT_MODEL, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(files[1], weights_only=True), net(torch.ones(1, 1, 32, 32), task="LA"))


def test_the_example_of_the_docstring() -> None:
    examples = doctest.DocTestFinder().find(ProPL, "ProPL", globs={"torch": torch, "ProPL": ProPL})
    runner = doctest.DocTestRunner()
    outcome = [runner.run(example) for example in examples if example.examples]
    assert sum(result.attempted for result in outcome) >= 3
    assert sum(result.failed for result in outcome) == 0


def test_decoders_have_the_same_form_and_no_weight_in_common(net: ProPL) -> None:
    sd, pd = net.decoder_sd.state_dict(), net.decoder_pd.state_dict()
    assert {name: value.shape for name, value in sd.items()} == {name: value.shape for name, value in pd.items()}
    assert not {p.data_ptr() for p in net.decoder_sd.parameters()} & {p.data_ptr() for p in net.decoder_pd.parameters()}
    assert network.DECODERS == ("sd", "pd", "mean")


@pytest.mark.parametrize(("kept", "dropped"), [("sd", "pd"), ("pd", "sd")])
def test_one_decoder_alone(net: ProPL, image: torch.Tensor, kept: str, dropped: str) -> None:
    slim = ProPL(COMPACT, decoders=(kept,)).eval()
    full = net.state_dict()
    assert full.keys() - slim.state_dict().keys() == {name for name in full if name.startswith(f"decoder_{dropped}.")}
    assert slim.chosen_decoder == kept
    copied = copy.deepcopy(net)
    copied.keep_decoder(kept)
    slim.load_state_dict(copied.state_dict())
    assert torch.equal(slim(image, task="LA"), net(image, task="LA", decoder=kept))
    for asked in (dropped, "mean"):
        for call in (slim.choose_decoder, slim.keep_decoder, lambda name: slim(image, task="LA", decoder=name)):
            with pytest.raises(ProPLError, match=f"decoder '{asked}': these weights hold decoder {kept} alone"):
                call(asked)


def test_a_choice_that_is_none_is_refused(net: ProPL) -> None:
    copied = copy.deepcopy(net)
    for number in (-1, 3):
        copied.get_buffer("predictor").fill_(number)
        with pytest.raises(ProPLError, match=f"predictor: is {number}, and no decoder has this number"):
            copied.require_decoder(copied.chosen_decoder)


def test_mean_keeps_both_decoders(net: ProPL) -> None:
    copied = copy.deepcopy(net)
    copied.keep_decoder("mean")
    assert copied.decoders == ("sd", "pd") and copied.chosen_decoder == "mean"
    assert copied.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize("decoders", [(), ("mean",), ("sd", "dp"), ("sd", "sd")])
def test_senseless_decoders(decoders: tuple[str, ...]) -> None:
    with pytest.raises(ProPLError, match=r"decoders: .* is not a choice of decoders; name sd, pd, or both"):
        ProPL(COMPACT, decoders=decoders)


def test_a_network_on_the_meta_device_draws_no_random_numbers_and_is_filled_by_a_state_dict(
    net: ProPL, image: torch.Tensor
) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        made = ProPL(COMPACT).eval()
    assert torch.equal(torch.get_rng_state(), before)
    made.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(made(image, task="LA"), net(image, task="LA"))
    assert torch.rand(3).unique().numel() == 3  # random numbers are back


@pytest.mark.parametrize("mode", ["text", "learned"])
def test_every_parameter_gets_a_gradient_from_one_step(mode: str) -> None:
    torch.manual_seed(0)
    net = ProPL(COMPACT, prompt_mode=mode)
    names = list(tasks.NAMES[:2])
    labelled = {"image": torch.randn(2, 1, 64, 64), "label": torch.rand(2, 1, 64, 64).round(), "task": names}
    unlabelled = {"image": torch.randn(2, 1, 64, 64), "task": names}
    with torch.enable_grad():
        ProPLMethod(net).train().step(labelled, unlabelled, 0.0)["loss"].backward()
    parameters = dict(net.named_parameters())
    assert ("prompts.learned" in parameters) == (mode == "learned")
    silent = [name for name, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters.values())
