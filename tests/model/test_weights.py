"""Weights and states on disk: whole or not at all, refused when they do not fit, never unpickled."""

from __future__ import annotations

import copy
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ENCODER, TINY_ENCODER
from safetensors.torch import load_file, save_file

import propl_monai
from propl_monai import tasks
from propl_monai.common.files import TEMPORARY_PREFIX, sweep_orphans
from propl_monai.errors import ProPLError
from propl_monai.model import weights as checkpoint
from propl_monai.model.network import ProPL
from propl_monai.model.prompts import PromptBank
from propl_monai.model.weights import (
    load_network,
    load_state,
    load_weights,
    read_header,
    save_safetensors,
    save_state,
    save_weights,
    start_from,
)
from propl_monai.tasks import NAMES


@pytest.fixture(scope="module")
def folder(network: ProPL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the shared network, decoder "mean" chosen. Read it, do not change it."""
    path = tmp_path_factory.mktemp("weights")
    network.choose_decoder("mean")
    save_weights(network, path, {"preset": "test", "spatial_size": [32, 32], "validation_mdice": 0.5})
    network.choose_decoder("sd")
    return path


@pytest.fixture(scope="module")
def onehot() -> ProPL:
    """The same shapes, another prompt mode."""
    return ProPL(ENCODER, prompt_mode="onehot").eval()


def same_state(first: ProPL, second: ProPL, but: tuple[str, ...] = ()) -> bool:
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left if key not in but)


def small_bank(width: int, names: tuple[str, ...] = ("left atrium", "thyroid nodule")) -> PromptBank:
    torch.manual_seed(3)
    mask = torch.ones(len(names), 24, dtype=torch.bool)
    return PromptBank(
        names, [f"Find the {name}." for name in names], torch.randn(len(names), 24, width), mask, "x", "0" * 64
    )


def with_bank(bank: PromptBank, mode: str = "text") -> ProPL:
    torch.manual_seed(4)
    network = ProPL(TINY_ENCODER, prompts=False, text_shape=(24, bank.embeddings.shape[2]))
    network.attach_prompts(bank, mode)
    return network.eval()


def test_header_says_what_the_weights_are(network: ProPL, folder: Path) -> None:
    header = read_header(folder / "model.safetensors")
    assert network.prompts is not None
    assert header == {
        "version": propl_monai.__version__,
        "architecture": {
            "network": "propl",
            "encoder": ENCODER,
            "prompt_mode": "text",
            "prompt_padding": "zero",
            "decoder_block": "unetr",
            "text_shape": [24, 384],
            "tasks": list(NAMES),
        },
        "prompt_bank_sha256": network.prompts.bank.sha256,
        "decoder": "mean",
        "preset": "test",
        "spatial_size": [32, 32],
        "validation_mdice": 0.5,
    }


def test_network_from_the_file_alone(network: ProPL, folder: Path) -> None:
    made, header = load_network(folder / "model.safetensors")
    assert header["preset"] == "test" and not made.training and made.chosen_decoder == "mean"
    assert same_state(made, network, but=("predictor",))
    image = torch.rand(1, 1, 40, 33)
    with torch.no_grad():
        assert torch.equal(made(image, task="TG", decoder="pd"), network(image, task="TG", decoder="pd"))


def test_a_training_starts_from_all_weights_of_a_file(network: ProPL, folder: Path) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    start_from(other, str(folder / "model.safetensors"))
    assert same_state(other, network, but=("predictor",))
    start_from(other, None)  # nothing to start from: nothing changes
    assert same_state(other, network, but=("predictor",))


def test_flat_file_holds_the_same_tensors_and_nothing_else(network: ProPL, folder: Path) -> None:
    flat = torch.load(folder / "model.pt", weights_only=True)
    assert (
        all(isinstance(value, torch.Tensor) for value in flat.values()) and flat.keys() == network.state_dict().keys()
    )
    made = ProPL(ENCODER)
    assert load_weights(made, folder / "model.pt") == {}
    assert same_state(made, network, but=("predictor",)) and made.chosen_decoder == "mean"


@pytest.mark.parametrize("mode", ["learned", "onehot", "none"])
def test_every_prompt_mode_comes_back(mode: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    given = ProPL(TINY_ENCODER, prompt_mode=mode, prompt_padding="released").eval()
    save_weights(given, tmp_path, {})
    made, _ = load_network(tmp_path / "model.safetensors")
    assert made.prompts is not None and (made.prompts.mode, made.prompts.padding) == (mode, "released")
    assert same_state(made, given)


def test_the_light_decoder_comes_back_and_is_not_taken_for_the_other(tmp_path: Path) -> None:
    given = ProPL(TINY_ENCODER, decoder_block="light").eval()
    save_weights(given, tmp_path, {})
    made, header = load_network(tmp_path / "model.safetensors")
    assert header["architecture"]["decoder_block"] == made.decoder_block == "light"
    assert same_state(made, given)
    with pytest.raises(ProPLError, match="decoder_block 'light' there, 'unetr' here"):
        load_weights(ProPL(TINY_ENCODER), tmp_path / "model.safetensors")


def test_weights_from_before_there_was_a_choice_hold_unetr_blocks(folder: Path, tmp_path: Path) -> None:
    state, header = load_file(folder / "model.safetensors"), read_header(folder / "model.safetensors")
    del header["architecture"]["decoder_block"], header["architecture"]["network"]
    save_file(state, str(tmp_path / "old.safetensors"), {"propl": json.dumps(header)})
    made, _ = load_network(tmp_path / "old.safetensors")
    assert made.decoder_block == "unetr"


def test_an_encoder_with_constants_that_no_file_holds_comes_back(tmp_path: Path) -> None:
    given = ProPL("tiny_vit_5m_224", prompts=False, text_shape=(6, 16)).eval()
    assert {name for name, _ in given.named_buffers()} - given.state_dict().keys()  # or another encoder must be taken
    save_weights(given, tmp_path, {})
    made, _ = load_network(tmp_path / "model.safetensors")
    image, text = torch.rand(1, 1, 64, 64), torch.rand(1, 6, 16)
    with torch.no_grad():
        assert torch.equal(made(image, text=text), given(image, text=text))


def test_weights_of_half_precision_are_read_as_float32(network: ProPL, folder: Path, tmp_path: Path) -> None:
    state = {
        name: value.bfloat16() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    save_file(
        state, str(tmp_path / "half.safetensors"), {"propl": json.dumps(read_header(folder / "model.safetensors"))}
    )
    made, _ = load_network(tmp_path / "half.safetensors")
    assert {value.dtype for value in made.parameters()} == {torch.float32}


@pytest.mark.parametrize("width", [32, 384])
@pytest.mark.parametrize("mode", ["text", "learned"])
def test_another_prompt_bank_travels_with_the_weights(width: int, mode: str, tmp_path: Path) -> None:
    """Of another width, or of the packaged one's width with other tasks."""
    given = with_bank(small_bank(width), mode)
    save_weights(given, tmp_path, {})
    made, header = load_network(tmp_path / "model.safetensors")
    assert header["architecture"]["tasks"] == ["left atrium", "thyroid nodule"]
    assert header["architecture"]["text_shape"] == [24, width]
    assert made.prompts is not None and made.prompts.bank.describe()["sentences"][1] == "Find the thyroid nodule."
    assert same_state(made, given)
    with pytest.raises(ProPLError, match="unknown task 'myocardium'"):
        made(torch.rand(1, 1, 32, 32), task="myocardium")


def test_a_network_without_prompts_comes_back(tmp_path: Path) -> None:
    given = ProPL(TINY_ENCODER, prompts=False, text_shape=(6, 16)).eval()
    save_weights(given, tmp_path, {})
    made, header = load_network(tmp_path / "model.safetensors")
    assert made.prompts is None and header["prompt_bank_sha256"] is None and same_state(made, given)


def test_weights_with_one_decoder_come_back_and_are_not_taken_for_full_ones(tmp_path: Path) -> None:
    torch.manual_seed(6)
    full = ProPL(TINY_ENCODER).eval()
    slim = copy.deepcopy(full)
    slim.keep_decoder("pd")
    save_safetensors(slim, tmp_path / "slim.safetensors", {"preset": "test"})
    save_weights(full, tmp_path, {})
    made, header = load_network(tmp_path / "slim.safetensors")
    assert same_state(made, slim) and made.decoders == ("pd",) and made.chosen_decoder == "pd"
    assert header["architecture"]["decoders"] == ["pd"] and header["decoder"] == "pd" and header["preset"] == "test"
    assert "decoders" not in read_header(tmp_path / "model.safetensors")["architecture"]
    before = {key: value.clone() for key, value in full.state_dict().items()}
    with pytest.raises(
        ProPLError, match=r"slim.safetensors: holds decoder pd, where sd and pd is wanted; give the full"
    ):
        load_weights(full, tmp_path / "slim.safetensors")
    with pytest.raises(ProPLError, match="holds decoder sd and pd, where pd is wanted"):
        load_weights(made, tmp_path / "model.safetensors")
    assert all(torch.equal(before[key], value) for key, value in full.state_dict().items())


def test_a_header_that_hides_a_missing_decoder_is_found_out(tmp_path: Path) -> None:
    slim = ProPL(TINY_ENCODER, decoders=("pd",)).eval()
    told = {key: value for key, value in checkpoint.architecture(slim).items() if key != "decoders"}
    save_safetensors(slim, tmp_path / "slim.safetensors", {"architecture": told})
    with pytest.raises(ProPLError, match=r"does not fit the network in 1 .*decoder_sd"):
        load_network(tmp_path / "slim.safetensors")


def test_another_architecture_is_refused_with_the_differences(folder: Path, onehot: ProPL) -> None:
    before = {key: value.clone() for key, value in onehot.state_dict().items()}
    with pytest.raises(ProPLError) as caught:
        load_weights(onehot, folder / "model.safetensors")
    assert str(folder / "model.safetensors") in caught.value.where
    assert "prompt_mode 'text' there, 'onehot' here" in caught.value.fact and "encoder" not in caught.value.fact
    assert "use the configs that these weights were trained with" in caught.value.cure
    assert all(torch.equal(before[key], value) for key, value in onehot.state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_another_encoder_is_refused(folder: Path, suffix: str) -> None:
    other = ProPL("test_resnet")
    with pytest.raises(ProPLError) as caught:
        load_weights(other, folder / f"model.{suffix}")
    fact, cure = {
        "safetensors": (f"encoder '{ENCODER}' there, 'test_resnet' here", "use the configs that these weights"),
        "pt": ("does not fit the network", "give the model.safetensors of that training"),
    }[suffix]
    assert fact in caught.value.fact and caught.value.cure.startswith(cure)


def test_entries_of_a_header(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pt"):  # the flat file has none: the other one beside it tells
        assert checkpoint.from_header(folder / name, "encoder", "other") == ENCODER
        assert checkpoint.from_header(folder / name, "no such entry", [1]) == [1]
    assert checkpoint.from_header(tmp_path / "missing.safetensors", "encoder", "other") == "other"


def test_flat_weights_of_another_encoder_name_the_first_tensors(tmp_path: Path, network: ProPL) -> None:
    save_weights(ProPL("test_resnet"), tmp_path, {})
    with pytest.raises(ProPLError) as caught:
        load_weights(network, tmp_path / "model.pt")
    assert "encoder.backbone.conv_stem.weight" in caught.value.fact
    assert caught.value.cure.startswith("give the model.safetensors of that training")


def test_other_preprocessing_is_refused(folder: Path) -> None:
    made = ProPL(ENCODER)
    load_weights(made, folder / "model.safetensors", {"spatial_size": [32, 32]})
    with pytest.raises(ProPLError, match=r"spatial_size \[32, 32\] there, \[64, 64\] here"):
        load_weights(made, folder / "model.safetensors", {"spatial_size": [64, 64]})


def test_missing_and_foreign_files_are_named(tmp_path: Path, network: ProPL) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    (tmp_path / "text.pt").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    expected = {
        "none.safetensors": "is no readable safetensors file",
        "none.pt": "does not exist",
        "other.safetensors": "was not written by propl_monai",
        "text.pt": "cannot be read",
        "list.pt": "holds no state dict",
    }
    for name, fact in expected.items():
        with pytest.raises(ProPLError) as caught:
            load_weights(network, tmp_path / name)
        assert name in caught.value.where and fact in caught.value.fact and caught.value.cure, name


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ProPLError, match=r"is no readable safetensors file|cannot be read"):
        load_weights(ProPL(ENCODER), tmp_path / name)


def header_of_the_file(content: bytes) -> tuple[int, dict[str, Any]]:
    length = struct.unpack("<Q", content[:8])[0]
    return length, json.loads(content[8 : 8 + length])


def test_flipped_bits_in_the_header_are_refused_or_harmless(tmp_path: Path) -> None:
    """A flip may spare what counts (a version, a note); it must never end in another error or in other weights."""
    given = ProPL(TINY_ENCODER, prompts=False, text_shape=(6, 16)).eval()
    save_weights(given, tmp_path, {"preset": "test"})
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    length, header = header_of_the_file(content)
    assert "propl" in header["__metadata__"]
    ours = content.index(b"__metadata__")
    places = [*range(8), *range(ours, ours + 420, 7), *range(8, 8 + length, length // 40)]
    refused = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 7)
        path.write_bytes(damaged)
        try:
            made, _ = load_network(path)
        except ProPLError as error:
            assert str(path) in error.where or "encoder" in error.where
            refused += 1
        else:
            assert same_state(made, given)
    assert refused > len(places) // 2


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_are_not_run(tmp_path: Path, network: ProPL) -> None:
    torch.save({"network": Canary(tmp_path / "ran")}, tmp_path / "bad.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    for name in ("bad.pt", "bare.pt"):
        for read in (load_state, lambda path: load_weights(network, path)):
            with pytest.raises(ProPLError, match="cannot be read"):
                read(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with open(tmp_path / "bare.pt", "rb") as stream:
        pickle.load(stream)  # the canary does sing where it is run
    assert (tmp_path / "ran").exists()


def test_a_kill_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint_last.pt"
    save_state(path, {"epoch": 1})

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(ProPLError, match=r"cannot be written \(No space left on device\); check the folder"):
            save_state(path, {"epoch": 2})
    assert load_state(path) == {"epoch": 1} and list(tmp_path.iterdir()) == [path]
    save_state(path, {"epoch": 2})
    assert load_state(path) == {"epoch": 2}


def test_state_keeps_numbers_texts_and_tensors(tmp_path: Path) -> None:
    state = {"tensor": torch.arange(3), "score": 0.1 + 0.2, "none": None, "nested": {"tasks": ["a"], 1: (2, 3)}}
    save_state(tmp_path / "new" / "state.pt", state)
    found = load_state(tmp_path / "new" / "state.pt")
    assert torch.equal(found.pop("tensor"), state.pop("tensor")) and found == state  # type: ignore[arg-type, call-overload]


def test_orphans_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (f"{TEMPORARY_PREFIX}1-model.pt", f"{TEMPORARY_PREFIX}2-model.pt", "model.pt", "tmp-notes.txt"):
        (tmp_path / name).touch()
    assert sweep_orphans(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "tmp-notes.txt"]
    assert sweep_orphans(tmp_path) == 0


def test_a_copy_aside_never_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    assert checkpoint.copy_aside(tmp_path) == [] and not (tmp_path / "previous").exists()
    (tmp_path / "model.pt").write_bytes(b"third")
    for name in ("2", "notes"):  # the first was deleted by hand
        (tmp_path / "previous" / name).mkdir(parents=True)
    assert checkpoint.copy_aside(tmp_path) == [tmp_path / "previous" / "3" / "model.pt"]
    assert (tmp_path / "previous" / "3" / "model.pt").read_bytes() == b"third"


def test_tasks_that_a_user_added_are_described_in_the_header_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_added", {})
    made = tasks.add(tasks.new_task("carotid lumen", "neck"))
    tasks.add(tasks.new_task("plaque"))  # of other weights
    save_safetensors(with_bank(small_bank(8, ("left atrium", made.name))), tmp_path / "own.safetensors", {})
    save_safetensors(with_bank(small_bank(8)), tmp_path / "plain.safetensors", {})
    assert "added_tasks" not in read_header(tmp_path / "plain.safetensors")
    tasks._added.clear()
    network, header = load_network(tmp_path / "own.safetensors")
    assert tasks.find("CL") == made and len(header["added_tasks"]) == 1 and not tasks.is_added("plaque")
    assert network.task_names == ["left atrium", "carotid lumen"]
    bank = PromptBank.load()
    facts = bank.describe()
    grown = PromptBank(
        [*NAMES, made.name],
        [*facts["sentences"], "x"],
        bank.embeddings[[*range(8), 0]],
        bank.mask[[*range(8), 0]],
        "x",
        "0" * 64,
    )
    save_safetensors(with_bank(grown), tmp_path / "grown.safetensors", {})
    described = checkpoint.described_network(tmp_path / "grown.safetensors")  # of evaluation and the bundle's inference
    load_weights(described, tmp_path / "grown.safetensors")
    assert described.task_names == [*NAMES, made.name]
    for broken in ([{**tasks.facts(made), "name": "../x"}], [5], 5, {"name": "x"}):
        save_safetensors(with_bank(small_bank(8)), tmp_path / "broken.safetensors", {"added_tasks": broken})
        with pytest.raises(ProPLError, match=r"broken\.safetensors: describes a task that is none"):
            read_header(tmp_path / "broken.safetensors")
