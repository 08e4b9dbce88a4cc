"""A further task: what teaches it, what stays as it was, what is refused, and that the rest takes it like any other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import TINY_ENCODER, small_network, tiny_network
from typer.testing import CliRunner

from propl_monai import Predictor, cli, tasks
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import open_datalist
from propl_monai.deploy import add_task as module
from propl_monai.deploy.add_task import Sources, Teaching, add_task
from propl_monai.deploy.demo.service import Service
from propl_monai.deploy.demo.typed import task_of
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.errors import ProPLError
from propl_monai.images import read_image
from propl_monai.model import prompts
from propl_monai.model.network import ProPL
from propl_monai.model.prompts import PromptBank
from propl_monai.model.weights import load_network, read_header, save_safetensors, save_weights
from propl_monai.training.learning import KeepingOthers, LearningSentence

NAME = "carotid lumen"
QUICK = Teaching(max_epochs=2, steps_per_epoch=3, batch_size=2, sentence_rate=0.3, learning_rate=1e-2, tolerance=1.0)
ABOUT = {"preset": "test", "spatial_size": [32, 32], "normalisation": "half", "epoch": 7, "seed": 3}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds is not known to the next one."""
    monkeypatch.setattr(tasks, "_added", {})


@pytest.fixture(autouse=True)
def text_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences by a text encoder of no weight; the real one is tested with the prompt banks."""
    packaged = PromptBank.load().describe()

    def encode(encoder: str, names: list[str], length: int) -> PromptBank:
        assert (encoder, length) == (packaged["encoder"], 24)
        made = torch.randn(len(names), length, 384, generator=torch.Generator().manual_seed(5)) / 3
        mask = torch.arange(length).expand(len(names), -1) < 9
        sentences = [tasks.find(name).prompt for name in names]
        return PromptBank(names, sentences, made, mask, encoder, packaged["encoder_sha256"])

    monkeypatch.setattr(prompts, "build_bank", encode)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    save_weights(small_network(), folder / "models", ABOUT)
    return folder


@pytest.fixture
def pictures(phantoms: Path, tmp_path: Path) -> Path:
    """Eight pictures of which six have a mask, in the plain layout."""
    shutil.copytree(phantoms / "FH" / "PHANTOM", tmp_path / "neck" / "carotid_lumen" / "HOSPITAL")
    for mask in sorted((tmp_path / "neck" / "carotid_lumen" / "HOSPITAL" / "masks").iterdir())[:2]:
        mask.unlink()
    return tmp_path / "neck"


def logits(folder: Path, names: list[str]) -> torch.Tensor:
    network, _ = load_network(folder / "models" / "model.safetensors")
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.stack([network(image, task=name) for name in names])


@pytest.fixture
def taught(weights: Path, pictures: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    return tmp_path / "new", add_task(NAME, tmp_path / "new", Sources(pictures), weights, "neck", QUICK)


def test_the_new_task_is_learnt_and_the_others_stay_bit_by_bit(
    taught: tuple[Path, dict[str, Any]], weights: Path, check_run_json: Callable[[Path], dict[str, Any]]
) -> None:
    folder, results = taught
    assert torch.equal(logits(folder, list(tasks.NAMES)), logits(weights, list(tasks.NAMES)))
    dice = results["dice"]
    assert list(dice) == [NAME] and dice[NAME]["after"] > dice[NAME]["before"] and results["epoch"] > 0
    assert (results["labels"], results["labels_held_out"], results["unlabelled"]) == (4, 2, 2)
    record = check_run_json(folder / "run.json")
    assert (record["verb"], record["status"], record["results"]) == (
        "add task",
        "finished",
        json.loads(json.dumps(results)),
    )
    assert record["options"]["part"] == "sentence" and len(record["inputs"]) == 2
    assert [Path(path).name for path in record["outputs"]] == ["model.safetensors", "model.pt", "prompts.safetensors"]


def test_the_header_says_what_the_task_is(taught: tuple[Path, dict[str, Any]], weights: Path) -> None:
    folder, _ = taught
    before, after = (read_header(place / "models" / "model.safetensors") for place in (weights, folder))
    assert after["architecture"] == {**before["architecture"], "tasks": [*tasks.NAMES, NAME]}
    assert after["added_tasks"] == [tasks.facts(tasks.find(NAME)) | {"colour": [51, 34, 136], "synonyms": []}]
    assert after["added"][0]["task"] == NAME and after["added"][0]["labels"] == 4
    assert "epoch" not in after and after["seed"] == 3 and after["decoder"] == before["decoder"]
    bank = PromptBank.load(folder / "models" / "prompts.safetensors")
    assert bank.describe()["sentences"][-1] == "Segment the carotid lumen in the ultrasound image."
    assert bank.sha256 == after["prompt_bank_sha256"]


def test_another_process_knows_it_from_the_weights(
    taught: tuple[Path, dict[str, Any]], phantoms: Path, tmp_path: Path
) -> None:
    folder, _ = taught
    tasks._added.clear()
    with pytest.raises(ProPLError, match="unknown task"):
        tasks.find(NAME)
    predictor = Predictor.from_bundle(folder, engine="torch")
    picture = next((phantoms / "FH" / "PHANTOM" / "images").iterdir())
    found = predictor(picture, "Where is the carotid lumen?")
    assert found.task == NAME and found.mask.shape == read_image(picture).pixels.shape
    shown_by_demo = Service(predictor, tmp_path).about()["tasks"]
    assert [task["name"] for task in shown_by_demo] == [*tasks.NAMES, NAME] and task_of(
        "CL", predictor.tasks
    ).name == NAME
    assert [task.name for task in Served(folder).tasks] == [*tasks.NAMES, NAME]  # MONAI Label
    words = ["predict", str(picture), "-t", "CL", "--weights", str(folder), "-o", str(tmp_path / "masks")]
    words += ["--engine", "torch", "--overlay", "--measure", "--format", "png,coco,yolo,cvat"]
    run = CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert run.exit_code == 0 and (tmp_path / "masks" / f"{picture.stem}_carotid_lumen.png").is_file()
    assert json.loads((tmp_path / "masks" / "coco.json").read_text())["categories"][8]["name"] == NAME
    assert (tmp_path / "masks" / "classes.txt").read_text().splitlines()[8] == NAME
    shown = CliRunner().invoke(cli.app, ["info", "--weights", str(folder)]).output
    assert "CL  carotid lumen    neck" in shown and "weights: " + str(folder / "models") in shown
    assert "carotid" not in CliRunner().invoke(cli.app, ["info"]).output


def test_halves_and_exports_keep_it(taught: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    network, _ = load_network(taught[0] / "models" / "model.safetensors")
    tasks._added.clear()
    read_header(taught[0] / "models" / "model.safetensors")
    network.keep_decoder("sd")
    save_safetensors(network, tmp_path / "sd.safetensors", {}, half=True)
    tasks._added.clear()
    assert read_header(tmp_path / "sd.safetensors")["added_tasks"][0]["name"] == tasks.find("CL").name == NAME


def test_a_task_is_added_behind_an_added_one(
    taught: tuple[Path, dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    (pictures / "carotid_lumen").rename(pictures / "plaque")
    add_task("plaque", tmp_path / "two", Sources(pictures), taught[0], settings=QUICK)
    header = read_header(tmp_path / "two" / "models" / "model.safetensors")
    assert header["architecture"]["tasks"][-2:] == [NAME, "plaque"]
    assert [entry["name"] for entry in header["added_tasks"]] == [NAME, "plaque"]
    assert [entry["task"] for entry in header["added"]] == [NAME, "plaque"]
    old = [*tasks.NAMES, NAME]
    assert torch.equal(logits(tmp_path / "two", old), logits(taught[0], old))


def test_with_pictures_to_replay_the_decoders_learn_and_the_others_are_measured(
    weights: Path, pictures: Path, phantoms: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    sources = Sources(pictures, replay=phantoms)
    careful = replace(QUICK, learning_rate=1e-3)
    results = add_task(NAME, tmp_path / "new", sources, weights, None, careful, lambda *step: told.append(step))
    assert told == [(step, 6) for step in range(1, 7)]
    assert set(results["dice"]) == {*tasks.NAMES, NAME}
    assert not torch.equal(logits(tmp_path / "new", ["left atrium"]), logits(weights, ["left atrium"]))
    options = json.loads((tmp_path / "new" / "run.json").read_text())["options"]
    assert options["part"] == "decoders" and options["replay"] == str(phantoms)


def test_harm_to_others_is_no_model(weights: Path, pictures: Path, phantoms: Path, tmp_path: Path) -> None:
    wild = replace(QUICK, learning_rate=0.5, tolerance=0.0)
    with pytest.raises(
        ProPLError, match=r"carotid lumen: was not learnt: (every better epoch harmed|no epoch was better)"
    ):
        add_task(NAME, tmp_path / "new", Sources(pictures, replay=phantoms), weights, settings=wild)
    assert json.loads((tmp_path / "new" / "run.json").read_text())["status"] == "failed"
    assert not (tmp_path / "new" / "models").exists()


def test_a_sentence_without_labels(weights: Path, tmp_path: Path) -> None:
    results = add_task(NAME, tmp_path / "new", Sources(), weights)
    assert results["labels"] == 0 and results["dice"] == {}
    network, header = load_network(tmp_path / "new" / "models" / "model.safetensors")
    assert network.task_names[-1] == NAME and header["decoder"] == "pd"
    assert torch.equal(logits(tmp_path / "new", ["fetal head"]), logits(weights, ["fetal head"]))


def test_a_datalist_keeps_its_splits_and_test_cases_are_not_seen(pictures: Path, tmp_path: Path) -> None:
    task = tasks.add(tasks.new_task(NAME))
    read = open_datalist(str(pictures), None, str(tmp_path / "read"), [NAME])
    splits = [split for split in ("train", "validation", "test", "train") for _ in range(2)]
    cases = tuple(replace(case, split=split) for case, split in zip(read.cases, splits, strict=True))
    replace(read, cases=cases).write(tmp_path / "mine.json")
    (tmp_path / "new").mkdir()
    found = module._pictures(task, tmp_path / "new", Sources(pictures, tmp_path / "mine.json"))
    seen = {
        key: [Path(item["image"]).stem for item in getattr(found, key)] for key in ("learnt", "held_out", "unlabelled")
    }
    assert seen["learnt"] == ["patient0003_a", "patient0003_b"] and seen["held_out"] == [
        "patient0001_a",
        "patient0001_b",
    ]
    assert (
        seen["unlabelled"] == ["patient0000_a", "patient0000_b"]
        and found.sha256 == Datalist.read(found.listed[0]).sha256
    )
    assert [case.split for case in Datalist.read(tmp_path / "new" / "datalist.json").cases] == splits


def test_a_share_is_kept_for_the_test(pictures: Path, tmp_path: Path) -> None:
    task = tasks.add(tasks.new_task(NAME))
    (tmp_path / "new").mkdir()
    found = module._pictures(task, tmp_path / "new", Sources(pictures, test_share=0.4))
    splits = [case.split for case in Datalist.read(tmp_path / "new" / "datalist.json").cases]
    assert (
        splits.count("test") == 2 and splits.count("train") == 6
    )  # of three patients with masks none is left to hold out
    assert (len(found.learnt), len(found.held_out), len(found.unlabelled)) == (4, 0, 2)


def test_it_is_repeatable(weights: Path, pictures: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tasks._added.clear()
        add_task(NAME, tmp_path / name, Sources(pictures), weights, settings=QUICK)
    headers = [read_header(tmp_path / name / "models" / "model.safetensors") for name in ("one", "two")]
    assert headers[0] == headers[1]
    assert torch.equal(logits(tmp_path / "one", [NAME]), logits(tmp_path / "two", [NAME]))


# --- refused


def refused(message: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(ProPLError, match=message):
        add_task(*arguments, **options)


def test_names_and_places_that_will_not_do(weights: Path, pictures: Path, tmp_path: Path) -> None:
    new, given = tmp_path / "new", Sources(pictures)
    refused("the new target: the name is empty", " ", new, given, weights)
    refused("the new target: '!' is no name", "!", new, given, weights)
    refused("the new target: the weights .* know 'left atrium' already", "Left_Atrium", new, given, weights)
    refused("the new target: 'thyroid', by which 'thyroid gland'", "thyroid", new, given, weights)
    refused("nowhere: is not a folder", NAME, new, Sources(tmp_path / "nowhere"), weights)
    refused("none.json: does not exist", NAME, new, Sources(pictures, tmp_path / "none.json"), weights)
    refused("holds no folder 'other_vessel' or 'other vessel'; put pictures into", "other vessel", new, given, weights)
    refused("holds the weights to start from", NAME, weights, given, weights)
    refused("none: does not exist", NAME, new, given, tmp_path / "none")
    assert not (new / "models").exists()


def test_no_labels(weights: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.rmtree(pictures / "carotid_lumen" / "HOSPITAL" / "masks")
    refused(
        "holds no labelled picture of 'carotid lumen'; draw a mask", NAME, tmp_path / "new", Sources(pictures), weights
    )


def test_damaged_pictures(weights: Path, pictures: Path, tmp_path: Path) -> None:
    next((pictures / "carotid_lumen" / "HOSPITAL" / "images").iterdir()).write_bytes(b"no picture")
    refused("errors were found", NAME, tmp_path / "new", Sources(pictures), weights)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    def write(network: Any) -> Path:
        save_safetensors(network, tmp_path / "other.safetensors", ABOUT)
        return tmp_path / "other.safetensors"

    yield write


def test_weights_that_lack_something(others: Callable[[Any], Path], pictures: Path, tmp_path: Path) -> None:
    given = (NAME, tmp_path / "new", Sources(pictures))
    refused("hold network 'film', and only propl can be taught", *given, others(tiny_network("film")))
    refused(
        "know their tasks by number.*prompt_mode learned", *given, others(ProPL(TINY_ENCODER, prompt_mode="learned"))
    )
    refused("hold decoder sd alone", *given, others(ProPL(TINY_ENCODER, decoders=["sd"])))


def test_another_text_encoder(monkeypatch: pytest.MonkeyPatch, weights: Path, pictures: Path, tmp_path: Path) -> None:
    made = prompts.build_bank

    def other(*given: Any) -> PromptBank:
        bank = made(*given)
        facts = bank.describe()
        return PromptBank(facts["tasks"], facts["sentences"], bank.embeddings, bank.mask, facts["encoder"], "0" * 64)

    monkeypatch.setattr(prompts, "build_bank", other)
    refused("text encoder: .* is not the one that encoded", NAME, tmp_path / "new", Sources(pictures), weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=3", "--set: unknown setting 'epochs'; did you mean 'max_epochs'"),
        ("val_split=0.1", "--set: unknown setting 'val_split'"),
        ("max_epochs=many", "max_epochs: 'many' is no number from 0"),
        ("part=encoder", "--set part: unknown part of the network 'encoder'"),
        ("seed", "'seed' is not name=value"),
    ],
)
def test_settings_of_the_command_line(text: str, message: str) -> None:
    assert Teaching.read(["max_epochs=3", "part=decoders"]) == Teaching(max_epochs=3, part="decoders")
    with pytest.raises(ProPLError, match=re.escape(message)):
        Teaching.read([text])


def test_the_verb(weights: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["add-task", NAME, str(pictures), "-o", str(tmp_path / "new"), "--weights", str(weights), "--organ", "neck"]
    words += [part for key in ("max_epochs=1", "steps_per_epoch=4", "sentence_rate=0.3") for part in ("--set", key)]
    run = CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert run.exit_code == 0 and re.search(
        r"carotid lumen +Dice 0\.\d{3} before, 0\.\d{3} after \(2 pictures\)", run.output
    )
    for words in (["add-task", NAME], ["add-task", NAME, str(pictures), "--without-labels"]):
        failed = CliRunner().invoke(cli.app, words)
        assert isinstance(failed.exception, ProPLError) and failed.exception.where == "DATA"


# --- the method


def test_of_the_network_nothing_learns_but_the_decoders_and_nothing_of_the_old_sentences() -> None:
    network = small_network()
    method = LearningSentence(network, "fetal head", "decoders")
    groups = method.groups()
    assert groups[0]["params"] == [method.sentence] and groups[0]["lr"] == 1e-2
    names = {
        name for name, parameter in network.named_parameters() if any(parameter is one for one in groups[1]["params"])
    }
    assert names == {name for name, _ in network.named_parameters() if name.startswith("decoder_")}
    assert len(LearningSentence(network, "fetal head", "sentence").groups()) == 1
    with pytest.raises(ProPLError, match="unknown part of the network 'head'"):
        LearningSentence(network, "fetal head", "head")


def test_a_step_moves_one_row_of_the_bank() -> None:
    network = small_network()
    method = LearningSentence(network, "fetal head", "sentence")
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = {"image": image, "label": (image > 0.5).float(), "task": ["fetal head"] * 2}
    before = network.prompts.bank.embeddings.clone()  # type: ignore[union-attr]
    optimizer = torch.optim.AdamW(method.groups())
    method(batch, None, 0.0)["loss"].backward()
    optimizer.step()
    method.after_step()
    moved = (network.prompts.bank.embeddings != before).flatten(1).any(1)  # type: ignore[union-attr]
    assert moved.tolist() == [name == "fetal head" for name in tasks.NAMES]
    assert network.prompts.bank.mask[1].all()  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_frozen_encoder_gives_the_teacher_its_features() -> None:
    network = small_network()
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = {"image": image, "label": (image > 0.5).float(), "task": ["fetal head"] * 2}
    other = {"image": image, "task": ["left atrium", "myocardium"]}
    one, two = LearningSentence(network, "fetal head", "decoders", 10.0), KeepingOthers(network, 10.0)
    found = [method(batch, other, 0.0) for method in (one, two)]
    assert found[0]["kept"].item() == pytest.approx(0, abs=1e-6) and found[1]["kept"].item() == pytest.approx(
        0, abs=1e-6
    )
    assert found[0]["supervised"].item() == pytest.approx(found[1]["supervised"].item(), rel=0.2)
