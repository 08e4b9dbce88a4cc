"""What comes before a run: a folder that can be written, and keys that something uses."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from factories import ROOT

from propl_monai.common import bundle_start as bundle_run
from propl_monai.common.bundle_start import begin, check_keys, require_writable
from propl_monai.common.files import lock_folder
from propl_monai.errors import EXIT_BAD_INPUT, ProPLError

CONFIGS = ROOT / "bundle" / "configs"
PROGRAM = "/somewhere/monai/bundle/__main__.py"
# Which config a file of overrides stands on: a method or a network on train.json; others that are not named here stand alone.
BASES = {
    **{
        path.name: ["train.json"]
        for path in CONFIGS.glob("*.json")
        if path.name not in ("train.json", "evaluate.json", "inference.json")
        and {"method_def", "network_def"} & json.loads(path.read_text()).keys()
    },
    "compact.json": ["train.json"],
    "strong.json": ["train.json"],
    "bf16.json": ["train.json"],
    "released.json": ["train.json"],
    "quickstart.json": ["train.json", "compact.json"],
    "multi_gpu_train.json": ["train.json"],
    "evaluate.json": ["train.json"],
    "multi_gpu_evaluate.json": ["train.json", "evaluate.json"],
}
NOT_RUN = {"metadata.json"}


def command(*files: Path | str, **options: str) -> list[str]:
    listed = "[" + ",".join(f"'{file}'" for file in files) + "]"
    given = [part for key, value in options.items() for part in (f"--{key}", value)]
    return [PROGRAM, "run", "training", "--bundle_root", "b", "--config_file", listed, *given]


def config(*names: str) -> list[Path]:
    return [CONFIGS / name for name in names]


@pytest.fixture
def hook() -> Iterator[None]:
    """`begin` replaces the hook of uncaught exceptions."""
    before = sys.excepthook
    yield
    sys.excepthook = before


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.json") if path.name not in NOT_RUN))
def test_no_key_of_ours_is_idle(name: str) -> None:
    check_keys(command(*config(*BASES.get(name, []), name)))


@pytest.mark.parametrize(
    "names",
    [
        ("train.json", "compact.json", "released.json"),
        ("train.json", "compact.json", "strong.json", "propl_views.json"),
        ("train.json", "compact.json", "strong.json", "propl_views.json", "multi_gpu_train.json"),
        ("train.json", "compact.json", "multi_gpu_train.json"),
        ("train.json", "compact.json", "quickstart.json", "multi_gpu_train.json"),
        ("train.json", "compact.json", "evaluate.json"),
        ("train.json", "compact.json", "quickstart.json", "evaluate.json"),
        ("train.json", "released.json", "evaluate.json"),
        ("train.json", "compact.json", "evaluate.json", "multi_gpu_evaluate.json"),
    ],
    ids="+".join,
)
def test_combinations(names: tuple[str, ...]) -> None:
    check_keys(command(*config(*names), epochs="3", labelled_fraction="1/4"))


def commands_of_the_manuals() -> list[str]:
    """Every `monai.bundle run …` of the manuals, on one line, from its `run`."""
    names = ("README.md", "bundle/docs/README.md", "docs/scale.md")
    texts = [(CONFIGS.parents[1] / name).read_text() for name in names]
    lines = [line.strip() for text in texts for line in text.replace("\\\n", " ").splitlines()]
    commands = [line for line in lines if line.startswith(("python -m monai.bundle run ", "torchrun "))]
    return [command[command.index("run ", command.index("monai.bundle")) :] for command in commands]


def test_commands_of_the_manuals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)  # where the model card is; other pages give paths from the root, or $B/
    lines = commands_of_the_manuals()
    found = [line.replace("bundle/configs/", "configs/").replace("$B/", "configs/") for line in lines]
    assert {"training", "evaluating", "inference"} <= {line.split()[1] for line in found}
    assert sum("multi_gpu" in line for line in found) == 2
    for line in found:
        check_keys([PROGRAM, *shlex.split(line)])
        with pytest.raises(ProPLError, match="unknown config key 'no_such_option'"):
            check_keys([PROGRAM, *shlex.split(line), "--no_such_option", "1"])


def test_every_hyper_parameter_of_train_json_may_be_given() -> None:
    content = json.loads((CONFIGS / "train.json").read_text())
    plain = [key for key, value in content.items() if not isinstance(value, (dict, list))]
    assert {"epochs", "learning_rate", "seed", "resume"} <= set(plain)
    check_keys(command(*config("train.json"), **dict.fromkeys(plain, "x")))


@pytest.mark.parametrize(
    "key,message",
    [
        ("epoch", "--epoch: unknown config key 'epoch'; did you mean 'epochs'"),
        ("learning_rte", "did you mean 'learning_rate'"),
        ("max_epochs", "unknown config key 'max_epochs'"),
        ("train#trainr#max_epochs", "part 'trainr'; did you mean 'trainer'"),
        ("train::loadr::num_workers", "part 'loadr'; did you mean 'loader'"),
        ("train#handlers#99#interval", "part '99'"),
        ("validate#key_metric#mdise#decoders", "part 'mdise'; did you mean 'mdice'"),
        ("tasks#0#name", "part 'name'"),
        ("trian#trainer#max_epochs", "unknown config key 'trian'; did you mean 'train'"),
    ],
)
def test_misspelt_keys_of_the_command_line(key: str, message: str) -> None:
    with pytest.raises(ProPLError) as caught:
        check_keys(command(*config("train.json"), **{key: "1"}))
    assert message in str(caught.value) and caught.value.where == f"--{key}"


@pytest.mark.parametrize(
    "key", ["train#trainer#max_epochs", "train#handlers#0#print_lr", "tasks#0", "train#trainer#amp", "evaluator"]
)
def test_keys_that_exist_and_new_arguments_of_components_pass(key: str) -> None:
    check_keys(command(*config("train.json"), **{key: "1"}))


def test_the_equals_sign_may_join_key_and_value() -> None:
    argv = [PROGRAM, "run", f"--config_file={CONFIGS / 'train.json'}", "--epochs=3"]
    check_keys(argv)
    with pytest.raises(ProPLError, match="did you mean 'epochs'"):
        check_keys([*argv, "--epoch=3"])


def test_arguments_of_monai_itself_pass() -> None:
    check_keys(command(*config("train.json"), logging_file="l.conf", meta_file="m.json", run_id="training"))


def test_an_overlay_with_an_idle_key_is_named(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({"seed": 3, "learning_rte": 0.1}))
    with pytest.raises(ProPLError) as caught:
        check_keys(command(*config("train.json"), overlay))
    assert str(overlay) in caught.value.where and "unknown config key 'learning_rte'" in caught.value.fact
    assert caught.value.cure == "did you mean 'learning_rate'?"
    overlay.write_text(json.dumps({"seed": 3, "learning_rate": 0.1}))
    check_keys(command(*config("train.json"), overlay))


def test_a_key_that_an_overlay_itself_refers_to_is_used(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({"mine": 3, "seed": "$@mine + 1"}))
    check_keys(command(*config("train.json"), overlay, mine="4"))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["/somewhere/bin/pytest", "tests", "--epoch", "3"],
        [PROGRAM, "verify_metadata", "--config_file", "no.json", "--epoch", "3"],
        [PROGRAM, "run", "training", "--epoch", "3"],
    ],
    ids=["nothing", "another program", "another command", "no config file"],
)
def test_other_command_lines_are_left_alone(argv: list[str]) -> None:
    check_keys(argv)


def test_writable_folders_are_made_and_left_clean(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, hook: None) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "runs", tmp_path / "file"):
        with pytest.raises(ProPLError) as caught:
            begin(str(tmp_path / "fine"), str(folder))
        assert caught.value.where == str(folder) and "cannot be written (" in caught.value.fact
        assert caught.value.cure == "choose another folder or free it"


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_run.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(ProPLError, match=r"cannot be written \(No space left on device\)"):
        require_writable(tmp_path)


def test_begin_checks_the_command_line_first(
    tmp_path: Path, hook: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", command(*config("train.json"), epoch="3"))
    with pytest.raises(ProPLError) as caught:
        begin(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    # Uncaught, it ends the process with its message instead of a traceback.
    with pytest.raises(SystemExit) as ended:
        sys.excepthook(ProPLError, caught.value, None)
    assert ended.value.code == EXIT_BAD_INPUT
    assert "did you mean 'epochs'?" in capsys.readouterr().err


def test_begin_makes_folders_and_seeds(tmp_path: Path, hook: None) -> None:
    begin(str(tmp_path / "out"), str(tmp_path / "models"), 7)
    first = torch.rand(1)
    begin(str(tmp_path / "out"), None, 7)
    assert torch.equal(first, torch.rand(1))
    assert (tmp_path / "out").is_dir() and (tmp_path / "models").is_dir()


def test_folders_stay_locked_until_the_process_ends_and_may_be_locked_again_inside_it(
    tmp_path: Path, hook: None
) -> None:
    begin(str(tmp_path / "out"), str(tmp_path / "models"))
    begin(str(tmp_path / "out"))
    with lock_folder(tmp_path / "out"):
        pass
    code = "from pathlib import Path; from propl_monai.common.files import hold_folder; hold_folder(Path({!r}))"
    for name, said in (("out", "is being written to by another process"), ("models", "is being"), ("other", "")):
        done = subprocess.run([sys.executable, "-c", code.format(str(tmp_path / name))], capture_output=True, text=True)
        assert bool(done.returncode) == bool(said) and said in done.stderr
