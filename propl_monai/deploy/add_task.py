"""One more target for trained weights, from few labels, while what they know already stays (`propl add-task`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from propl_monai import tasks
from propl_monai.common.files import file_sha256, hold_folder
from propl_monai.common.options import pairs
from propl_monai.common.run_record import RunRecord
from propl_monai.data.datalist import Datalist, as_items
from propl_monai.data.splits import assign_splits
from propl_monai.datasets.cohort import DATALIST, open_datalist
from propl_monai.datasets.sources.listing import visible
from propl_monai.datasets.sources.registry import read_source
from propl_monai.datasets.verification.verify import verify_now
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.bundle_folder import find_weights, shipped_weights
from propl_monai.model.network import ProPL
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.prompts import with_task
from propl_monai.model.weights import FLAT_WEIGHTS, WEIGHTS, copy_aside, load_network, save_weights
from propl_monai.tasks import Task
from propl_monai.training.best_epoch import results_of
from propl_monai.training.learning import PARTS, LearningSentence, Settings, Steps, lasting, learn
from propl_monai.training.other_tasks import VALIDATION_MASKS, Pictures, pictures_of_others

BANK = "prompts.safetensors"  # beside the weights
VALIDATION_SHARE = 0.2  # of the groups of a folder: they choose the epoch
# Of a few labels; the stronger changes of the presets `compact` and `strong`.
VIEWS = {"rotation_degrees": 20.0, "scaling": 0.3, "flip": 0.5, "photometric": 1.0}
GUARDS = 12  # pictures that guard each other target: they are predicted after every epoch
RUN = "run.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Teaching(Settings):
    """Settings of `add_task`: those of `learning.Settings`, of which `val_split` does not count here, and two more.

    Attributes:
        sentence_rate: learning rate of the new sentence's embedding; `learning_rate` is that of the decoders.
        part: "sentence", its embedding learns alone; "decoders", they learn, too; "" for these where pictures of other
            targets are replayed, else for the sentence alone, which changes nothing for the others.
    """

    max_epochs: int = 5
    learning_rate: float = 2e-4
    sentence_rate: float = 1e-2
    part: str = ""

    @classmethod
    def read(cls, texts: Iterable[str]) -> Teaching:
        """From texts key=value, as on a command line."""
        given: dict[str, Any] = dict(pairs("--set", texts))
        names = [one.name for one in fields(cls) if one.name != "val_split"]
        for key in given:
            if key not in names:
                raise unknown("--set", "setting", key, names)
        part = given.pop("part", cls.part)
        if part and part not in PARTS:
            raise unknown("--set part", "part of the network", part, PARTS)
        return replace(cls.of(given), part=part)


@dataclass(frozen=True)
class Sources:
    """Where the pictures are.

    Attributes:
        data: folder of the pictures of the new target, `<TARGET>/<SOURCE>/{images,masks}`; None adds the sentence alone.
        datalist: of `data`, with its splits; None reads the folder and holds out a fifth of its groups.
        replay: folder with pictures of the other targets.
        replay_datalist: of `replay`; None reads the plain layout.
        test_share: of the groups of a folder without a datalist that training does not see, for `propl evaluate`.
    """

    data: Path | None = None
    datalist: Path | None = None
    replay: Path | None = None
    replay_datalist: Path | None = None
    test_share: float = 0.0


@dataclass
class _Found:
    """MONAI items of the new target, and the files that they were listed in."""

    learnt: list[dict] = field(default_factory=list)
    held_out: list[dict] = field(default_factory=list)
    unlabelled: list[dict] = field(default_factory=list)
    listed: list[Path] = field(default_factory=list)
    sha256: str | None = None


def add_task(
    name: str,
    output: Path | str,
    sources: Sources,
    weights: Path | str | None = None,
    organ: str | None = None,
    settings: Teaching | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Teach weights one more task, and write the folder of a model: `models/model.safetensors`, prompts, run.json.

    Args:
        name: of the target in English, such as "carotid lumen".
        output: folder to write to.
        sources: pictures.
        weights: file, folder of a training, or bundle; None for the package's own.
        organ: see `tasks.new_task`.
        settings: of the training.
        progress: called with (steps done, in all).

    Returns:
        The results in run.json.
    """
    output, settings = Path(output), settings or Teaching()
    if not settings.part:
        settings = replace(settings, part="decoders" if sources.replay else "sentence")
    given = find_weights(Path(weights)) if weights else shipped_weights()
    if given.resolve() == (output / "models" / WEIGHTS).resolve():
        raise ProPLError(output, "holds the weights to start from", "choose another output folder")
    network, header = load_network(given)
    prompts = (network := _teachable(network, given)).prompts
    assert prompts is not None, "it was checked"
    task = _task_to_add(name, organ, network, given)
    hold_folder(output)
    found = _pictures(task, output, sources)
    others = _pictures_of_others(network, output, sources, found)
    network.attach_prompts(with_task(prompts.bank, task.name), padding=prompts.padding)
    options = {**asdict(settings), "task": task.name, "organ": task.organ, "weights": str(given)}
    options |= {key: value if value is None else str(value) for key, value in vars(sources).items()}
    record = RunRecord(output / RUN, "add task", options, [given, *found.listed])
    record.write("running")
    try:
        results = _train(network, task, found, others, header, settings, progress)
        outputs = _write(network, output, header, task, given, found)
    except BaseException as error:
        record.fail(output, error)
        raise
    record.write("finished", outputs, results)
    return results


def _teachable(network: Segmenter, weights: Path) -> ProPL:
    """The network, after a check that it has what a further task needs."""
    cure = "give the model.safetensors of a training of propl"
    if not isinstance(network, ProPL):
        raise ProPLError(weights, f"hold network '{network.name}', and only propl can be taught more tasks", cure)
    network.require_decoder("mean", str(weights))
    if network.prompts is None or network.prompts.mode != "text":
        mode = network.prompts.mode if network.prompts else "none"
        raise ProPLError(weights, f"know their tasks by number, not by sentence (prompt_mode {mode})", cure)
    return network


def _task_to_add(name: str, organ: str | None, network: ProPL, weights: Path) -> Task:
    """The task of this name, known to this process from now on; one that the weights have is refused."""
    asked = name.strip().lower()
    task = next((one for one in tasks.known() if asked in (one.name, one.slug)), None)
    if task is None:
        task = tasks.add(tasks.new_task(name, organ, "the new target"))
    elif task.name in network.task_names:
        fact = f"the weights {weights} know '{task.name}' already"
        raise ProPLError("the new target", fact, "choose another name, or train on with `propl train`")
    elif organ:
        raise ProPLError("organ", f"'{task.name}' is a task of the package, of the {task.organ}", "leave --organ out")
    return task


def _pictures(task: Task, output: Path, sources: Sources) -> _Found:
    """The verified pictures of the task."""
    if sources.data is None:
        return _Found()
    if not sources.data.is_dir():
        raise ProPLError(sources.data, "is not a folder", "name the folder of the pictures")
    if sources.datalist:
        datalist = Datalist.read(sources.datalist, sources.data).select(tasks=[task.name])
    else:
        names = {task.name, task.slug, task.code.lower()}
        if not any(folder.name.lower() in names for folder in visible(sources.data)):
            cure = f"put pictures into {task.slug}/SOURCE/images and their masks into {task.slug}/SOURCE/masks there"
            raise ProPLError(sources.data, f"holds no folder '{task.slug}' or '{task.name}'", cure)
        read = read_source("folder", sources.data).select(tasks=[task.name])
        placed = assign_splits(read.cases, sources.test_share, VALIDATION_SHARE, minimum_units=1)
        datalist = replace(read, cases=placed)
    of_split = {split: [c for c in datalist.cases if c.split == split] for split in ("train", "validation")}
    items = {split: as_items(cases, datalist.root) for split, cases in of_split.items()}
    learnt = [item for item in items["train"] if "label" in item]
    if not learnt:
        cure = "draw a mask for at least one picture of the train split; five to twenty are a good start"
        raise ProPLError(sources.datalist or sources.data, f"holds no labelled picture of '{task.name}'", cure)
    listed = output / DATALIST
    datalist.write(listed)
    verify_now(datalist, listed)
    unlabelled = [item for item in items["train"] if "label" not in item]
    return _Found(
        learnt, [item for item in items["validation"] if "label" in item], unlabelled, [listed], datalist.sha256
    )


def _pictures_of_others(network: ProPL, output: Path, sources: Sources, found: _Found) -> Pictures:
    """Pictures for the other tasks: those to replay, and for all else the new ones."""
    if sources.data is None:
        return Pictures()
    given = str(sources.replay_datalist) if sources.replay_datalist else None
    replay = (
        open_datalist(str(sources.replay), given, str(output / "replay"), network.task_names)
        if sources.replay
        else None
    )
    others = [tasks.find(name) for name in network.task_names]
    study = [Path(item["image"]) for item in (*found.learnt, *found.unlabelled)]
    return pictures_of_others(others, study, {}, replay, GUARDS)


def _train(
    network: ProPL,
    task: Task,
    found: _Found,
    others: Pictures,
    header: Mapping[str, Any],
    settings: Teaching,
    progress: Progress,
) -> dict[str, Any]:
    """Train where there are labels; Dice before and after of the new task, and of the others that have masks to replay."""
    counts = {"labels": len(found.learnt), "labels_held_out": len(found.held_out), "unlabelled": len(found.unlabelled)}
    if not found.learnt:
        return {"task": task.name, "epoch": 0, "dice": {}, **counts}
    known = [name for name, words in others.reference.items() if words == VALIDATION_MASKS]
    measured = {name: others.measured[name] for name in known}
    measured[task.name] = found.held_out or found.learnt
    total = settings.max_epochs * settings.steps_per_epoch
    handlers = [Steps(lambda done: progress(done, total))]
    method = LearningSentence(network, task.name, settings.part, settings.keep_weight, settings.sentence_rate)
    rehearsed = others.rehearsed if settings.part == "decoders" else []
    best = learn(network, task.name, found.learnt, rehearsed, measured, header, settings, method, VIEWS, handlers)
    words = dict.fromkeys(known, VALIDATION_MASKS)
    words[task.name] = "labels held out" if found.held_out else "the labels it learnt from"
    results = {**results_of(best, words), **counts}
    if not best.epoch:
        cure = "give more labels or steps, pictures of the other targets with --replay, or a larger --tolerance"
        raise ProPLError(task.name, f"was not learnt: {results['why']}", cure)
    return results


def _write(
    network: ProPL, output: Path, header: Mapping[str, Any], task: Task, given: Path, found: _Found
) -> list[Path]:
    """The weights, and beside them their sentences as a prompt bank; earlier ones are copied aside."""
    models = output / "models"
    copy_aside(models)
    about = lasting(header)
    entry = {"task": task.name, "labels": len(found.learnt), "datalist_sha256": found.sha256}
    about["added"] = [*about.get("added", []), {**entry, "from_sha256": file_sha256(given)}]
    save_weights(network, models, about)
    assert network.prompts is not None, "it was checked"
    network.prompts.bank.save(models / BANK)
    return [models / WEIGHTS, models / FLAT_WEIGHTS, models / BANK]
