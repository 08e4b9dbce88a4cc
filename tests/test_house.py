"""The order of the house: who may import whom, who may touch what, and that each number has one home."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import propl_monai
from propl_monai import tasks

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "propl_monai"
CONFIGS = ROOT / "bundle" / "configs"
LONGEST_FILE = 320

# A room may import rooms of lower levels only, and itself. `propl_monai` alone, the version and lazy names, is above all.
LEVELS = (
    ("errors",),
    ("tasks",),
    ("common",),
    ("images",),
    ("data",),
    ("datasets", "model"),
    ("training", "inference"),
    ("evaluation", "deploy"),
    ("cli",),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FEWEST_FILES, MOST_FILES = 4, 15  # of a room, without `__init__`
OF_ONE_KIND = ("datasets/sources", "training/methods")  # folders that may hold more


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in FILES if name]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    """Full names of all that a module imports anywhere, `from a import b` as a.b, and dotted names in strings."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"propl_monai(\.\w+)+", node.value):
                yield node.value  # such as a reader's name for MONAI


def neighbours(module: str) -> set[str]:
    """Modules of this package that a module imports."""
    found = set()
    for name in imported(module):
        if name.startswith("propl_monai."):
            inner = name.removeprefix("propl_monai.")
            while inner and inner not in FILES:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found - {"", module}


def users(package: str) -> set[str]:
    return {module for module in FILES if any(n == package or n.startswith(package + ".") for n in imported(module))}


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a dotted name, such as torch.load."""
    for node in ast.walk(tree(module)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            yield f"{node.func.value.id}.{node.func.attr}", node


# --- rooms


def test_the_root_holds_the_rooms_and_nothing_else() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "errors", "tasks"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(LEVEL_OF) - {"errors", "tasks"}


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_in_one_direction(module: str) -> None:
    room = module.split(".")[0]
    for other in {name.split(".")[0] for name in neighbours(module)} - {room}:
        assert LEVEL_OF[other] < LEVEL_OF[room], f"{module} imports {other}"


def test_no_module_imports_itself_through_others() -> None:
    left = {module: neighbours(module) for module in MODULES}
    while free := {module for module, needed in left.items() if not needed & set(left)}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert left == {}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_test_of_its_name_or_its_room_says_which(module: str) -> None:
    path = FILES[module].relative_to(PACKAGE)
    if path.stem in ("__init__", "__main__") or (ROOT / "tests" / path.parent / f"test_{path.stem}.py").is_file():
        return
    room = ast.get_docstring(tree(module.rpartition(".")[0])) or ""
    assert f"`{path.stem}`" in room.partition("Tested elsewhere:")[2]


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in FILES.values()} - {PACKAGE}), ids=lambda path: path.name
)
def test_a_room_has_a_docstring_and_a_handful_of_files(folder: Path) -> None:
    name = folder.relative_to(PACKAGE).as_posix()
    assert len(ast.get_docstring(tree(name.replace("/", "."))) or "") > 40
    files = len(list(folder.glob("*.py"))) - 1
    assert files <= MOST_FILES or name in OF_ONE_KIND


def test_no_part_knows_a_method_by_name() -> None:
    """The contract and the registry are for all; the file of a method is for the registry alone."""
    home = "training.methods"
    methods = {f"propl_monai.{n}" for n in FILES if n.startswith(f"{home}.")} - {f"propl_monai.{home}.base"}
    knowing = {module for method in methods for module in users(method)} - {""}
    assert {module for module in knowing if not module.startswith(home)} == set()


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import propl_monai",
        "import propl_monai.tasks, propl_monai.data.datalist, propl_monai.data.splits, propl_monai.datasets.sources.registry",
        "from propl_monai import Case, Datalist, ProPLError, TASKS",
        "import propl_monai.cli",
    ],
)
def test_torch_is_loaded_only_when_it_is_needed(statement: str) -> None:
    assert not {"torch", "monai", "timm", "transformers"} & loaded_by(statement)


def test_public_names_resolve() -> None:
    assert {"ProPL", "PromptBank", "ProPLError", "TASKS", "Case", "Datalist"} <= set(propl_monai.__all__)
    for name in propl_monai.__all__:
        assert getattr(propl_monai, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+", propl_monai.__version__)
    with pytest.raises(AttributeError, match="no attribute 'PropL'"):
        _ = propl_monai.PropL


# --- who may touch what


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        # phantoms writes what it has made and opens nothing
        (
            "PIL",
            {
                *(f"images.{name}" for name in ("picture", "write", "opening", "pillow", "dicom", "resize")),
                "datasets.phantoms.write_phantoms",
            },
        ),
        ("nibabel", {"images.nifti", "inference.formats.nifti"}),
        ("SimpleITK", {"images.metaimage"}),
        ("pydicom", {"images.dicom_header", "images.dicom", "inference.formats.dicom_seg"}),
        ("av", {"images.video"}),
        ("monai.metrics", {"evaluation.metrics"}),
        ("timm", {"model.encoder", "model.gelu_linear", "model.depthwise"}),
        ("transformers", {"model.prompts"}),
        (
            "monailabel",
            {
                "deploy.monai_label.main",
                *(f"deploy.monai_label.lib.{name}" for name in ("datastore", "infer", "train", "uncertainty")),
            },
        ),
        ("onnxruntime", {"inference.engines.onnx_engine", "deploy.parity"}),
        ("pickle", set()),
        (
            "propl_monai.model.uplc",
            {
                *(f"training.methods.{name}" for name in ("propl", "propl_views", "mean_teacher")),
                *("model.views", "inference.engines.decoding", "training.confidence"),
            },
        ),
    ],
)
def test_packages_have_one_door(package: str, allowed: set[str]) -> None:
    assert users(package) <= allowed
    assert users(package) or not allowed


def test_phantoms_open_no_pictures() -> None:
    assert "Image.open" not in {name for name, _ in calls("datasets.phantoms.write_phantoms")}


def test_only_one_module_writes_and_reads_weights() -> None:
    doors = {name: {m for m in FILES if any(n == name for n, _ in calls(m))} for name in ("torch.save", "torch.load")}
    assert doors == {"torch.save": {"model.weights"}, "torch.load": {"model.weights", "model.encoder"}}
    assert not {name for module in FILES for name in imported(module)} & {"torch.save", "torch.load"}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled_and_no_foreign_code_is_run(module: str) -> None:
    for name, call in calls(module):
        options = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        if name == "torch.load":
            assert options.get("weights_only") is True, f"line {call.lineno}"
        assert not options.get("trust_remote_code") and not options.get("allow_pickle"), f"line {call.lineno}"


@pytest.mark.parametrize("module", FILES)
def test_no_error_is_swallowed(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            assert not (broad and all(isinstance(step, ast.Pass) for step in node.body)), f"line {node.lineno}"


@pytest.mark.parametrize("module", FILES)
def test_one_module_knows_where_the_bundle_is(module: str) -> None:
    assert module == "common.packaged_bundle" or not re.search(
        r"\bbundle/|/ *[\"']bundle[\"']", FILES[module].read_text(encoding="utf-8")
    )


# --- files


@pytest.mark.parametrize("module", FILES)
def test_files_are_short_enough_to_read(module: str) -> None:
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("module", FILES)
def test_modules_and_public_names_say_what_they_are(module: str) -> None:
    assert ast.get_docstring(tree(module))
    assert (
        "from __future__ import annotations" in FILES[module].read_text(encoding="utf-8") or len(tree(module).body) == 1
    )
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} in line {node.lineno}"


def project_files() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_a_developers_machine() -> None:
    machine = re.compile(rb"(?<![\w.])/(?:work|root|tmp|Users|home/\w+)/")
    workshop = re.compile(rb"\.\./" + rb"shared")  # data roots are arguments; CI alone may look there
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content[:1024]:
            continue
        assert not machine.search(content), path
        assert ".ci" in path.parts or not workshop.search(content), path


def test_no_unfinished_business() -> None:
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "raise NotImplemented")))
    for path in FILES.values():
        assert not marks.search(path.read_text(encoding="utf-8")), path


# --- one home for each number


@cache
def config(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / name).read_text(encoding="utf-8"))


def test_metadata_lists_the_registered_tasks() -> None:
    listed = config("metadata.json")["tasks"]
    assert list(listed.items()) == [(task.name, task.prompt) for task in tasks.TASKS]


def test_train_config_names_the_registered_tasks() -> None:
    assert config("train.json")["tasks"] == list(tasks.NAMES)


def test_versions_agree() -> None:
    metadata = config("metadata.json")
    assert metadata["version"] == propl_monai.__version__ and propl_monai.__version__ in metadata["changelog"]


def components(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a config that one of our own classes or functions builds."""
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("propl_monai."):
            yield node
        for value in node.values():
            yield from components(value)
    elif isinstance(node, list):
        for value in node:
            yield from components(value)


def target(component: dict[str, Any]) -> Any:
    home, _, name = component["_target_"].rpartition(".")
    return getattr(import_module(home), name)


def defaults(component: dict[str, Any], numbers: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Arguments that refer to a plain value at the top of the config and have a default: (in config, in code)."""
    found = {}
    for name, parameter in inspect.signature(target(component)).parameters.items():
        reference = str(component.get(name, ""))
        value = numbers.get(reference.removeprefix("@"))
        plain = reference.startswith("@") and "#" not in reference and not str(value).startswith(("$", "@"))
        plain = plain and not isinstance(value, dict)
        if plain and parameter.default is not inspect.Parameter.empty:
            found[name] = (value, parameter.default)
    return found


def test_code_defaults_equal_the_train_config() -> None:
    numbers = config("train.json")
    compared: dict[str, set[str]] = {}
    for component in components(numbers):
        for name, (written, built_in) in defaults(component, numbers).items():
            assert written == built_in, f"{component['_target_']}.{name}"
            compared.setdefault(component["_target_"].rpartition(".")[2], set()).add(name)
    method = {"passes", "perturbation", "strength", "power", "pseudo_label", "unlabelled_weight", "supervise_pd"}
    assert compared["ProPLMethod"] == method | {"cutmix"}
    assert "steps" in compared["PairedLoader"]
    assert compared["ProPL"] == {"encoder", "prompts", "prompt_mode", "prompt_padding", "decoder_block"}
    assert {"rotation_degrees", "scaling", "photometric", "strong_view"} <= compared["TrainingViews"]
    assert "precision" in compared["SemiSupervisedTrainer"]


@pytest.mark.parametrize("name", [path.name for path in sorted(CONFIGS.glob("*.json"))])
def test_config_targets_exist_and_take_their_arguments(name: str) -> None:
    for component in components(config(name)):
        known = inspect.signature(target(component)).parameters
        given = {key for key in component if not (key.startswith("_") and key.endswith("_"))}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            assert given <= set(known), component["_target_"]


@pytest.mark.parametrize(
    "name",
    [
        *("compact.json", "strong.json", "bf16.json", "released.json", "quickstart.json"),
        *("supervised.json", "mean_teacher.json", "propl_views.json", "film.json", "dodnet.json"),
        *(
            "clip_universal.json",
            "versemi.json",
            "vclipseg.json",
            "uniseg.json",
            "meduniseg.json",
            "meduniseg_star.json",
        ),
        *("deep_supervision.json", "library.json"),
        *("fixmatch.json", "cps.json", "unimatch.json", "st_pp.json", "bcp.json", "augseg.json"),
        "unimatch_v2.json",
        "csc_pa.json",
        "univ_full.json",
        "ddfp.json",
        "u2pl.json",
    ],
)
def test_override_configs_only_name_what_the_train_config_has(name: str) -> None:
    if not (CONFIGS / name).is_file():
        pytest.skip(f"{name} is not part of this bundle")
    train, mine = config("train.json"), config(name)
    for key in mine:
        node: Any = train
        if key not in train and f'"@{key}"' in json.dumps(mine):
            continue  # an option of this method alone
        for part in key.lstrip("+").split("#"):
            assert part in node or key.startswith("+"), f"{name}: {key}"
            node = node[part] if isinstance(node, dict) else node
