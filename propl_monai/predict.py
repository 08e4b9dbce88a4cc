"""Images in, masks out: the inferer that asks for tasks, and what is written for each image."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from propl_monai import tasks as registry
from propl_monai import uplc
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.files import picture_suffix, stem
from propl_monai.images import read_image, to_grey, write_mask, write_overlay, write_png16
from propl_monai.network import ProPL
from propl_monai.options import switch
from propl_monai.run_record import RunRecord

THRESHOLD = 0.5
LARGEST_DEVIATION = 0.5  # of a probability: half of the passes say 0, half say 1
logger = logging.getLogger(__name__)


class PromptInferer(Inferer):
    """Encodes a batch once and decodes it for every task that is asked for.

    Args:
        tasks: one name or several; None when the batch brings its own, see `__call__`.
        decoder: "sd", "pd", "mean", or None for the network's choice.
        uncertainty_passes: N perturbed passes of decoder sd for the variance of eq. 4; 0 for none.
        perturbation, strength: of these passes, see `uplc.perturb`.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | None = None,
        decoder: str | None = None,
        uncertainty_passes: int = 0,
        perturbation: str = "element",
        strength: float = 0.3,
    ) -> None:
        super().__init__()
        self.tasks = None if tasks is None else [task.name for task in registry.find_all(tasks)]
        self.decoder, self.passes = decoder, uncertainty_passes
        self.perturbation, self.strength = perturbation, strength

    def __call__(self, inputs: Tensor, network: ProPL, task: Sequence[str] | None = None, *_: Any, **__: Any) -> Tensor:
        """Segment a batch.

        Args:
            inputs: (B, 1, H, W), normalised.
            network: a `ProPL`.
            task: the task of each image; stands in for `tasks` when that is None.

        Returns:
            Logits (B, K, H, W) for K tasks (1 when `task` is used), followed by K variances in [0, 0.25] when
            uncertainty is wanted.
        """
        features = network.encode(inputs)
        decoder = self.decoder or network.chosen_decoder
        asked: Sequence[str | Sequence[str] | None] = [task] if self.tasks is None else self.tasks
        texts = [network.text(names, len(inputs)) for names in asked]
        maps = [network.decode(features, text, decoder).float() for text in texts]
        if self.passes:
            maps += [self._variance(network, features, text) for text in texts]
        return torch.cat(maps, dim=1)

    def _variance(self, network: ProPL, features: Any, text: Tensor) -> Tensor:
        passes = uplc.stochastic_passes(
            lambda v4: network.decode(features._replace(v4=v4), text, "sd"),
            features.v4,
            self.passes,
            self.perturbation,
            self.strength,
        )
        return uplc.mean_and_variance(passes)[1]


class InputImages:
    """The images of a file or folder (recursive), each opened once to see that it can be read.

    Args:
        path: a file or a folder; what lies inside `output_dir` is passed over.
        output_dir: where the results go.

    Attributes:
        items: {"image": path, "image_path": the same (loading replaces the first), "name": path of its results relative
            to the output folder, without suffix}.
        findings: (path, reason) of what cannot be read.

    Raises:
        ProPLError: nothing is there, or no file of it has the suffix of a picture.
    """

    def __init__(self, path: str, output_dir: str) -> None:
        root = Path(path)
        if not root.exists():
            raise ProPLError(path, "does not exist", "name an image or a folder of images")
        folder = root if root.is_dir() else root.parent
        files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
        inside = Path(output_dir).resolve()
        files = [file for file in files if inside not in file.resolve().parents]
        if root.is_dir():
            files = [file for file in files if picture_suffix(file.name) and not file.name.startswith(".")]
        if not files:
            raise ProPLError(path, "holds no picture", "supported: PNG, JPG, BMP, TIFF, NIfTI")
        self.items: list[dict[str, str]] = []
        self.findings: list[tuple[str, str]] = []
        for file, name in zip(files, _result_names(files, folder), strict=True):
            self._add(file, name)

    def _add(self, file: Path, name: str) -> None:
        try:
            read_image(file)
        except ProPLError as error:
            self.findings.append((str(file), f"{error.fact}; {error.cure}"))
            logger.error("%s", error)
        else:
            self.items.append({"image": str(file), "image_path": str(file), "name": name})


def _result_names(files: Sequence[Path], folder: Path) -> list[str]:
    """Paths below the folder without suffix; files that differ in suffix only must not overwrite each other's results."""
    paths = [file.relative_to(folder) for file in files]
    names = [str(path.with_name(stem(path.name))) for path in paths]
    counts, taken = Counter(names), set(names)
    for index, path in enumerate(paths):
        if counts[names[index]] > 1:
            name = str(path.with_name(path.name.replace(".", "_")))
            while name in taken:
                name += "_"
            names[index] = name
            taken.add(name)
    return names


class SavePredictions:
    """A handler of the inference evaluator: writes masks, maps and overlays, and run.json.

    Files, for an image `a/b.png` and a task: `a/b_<task>.png` (mask, 0 and 255), `…_probability.png` (16 bit, 65535 is
    1), `…_uncertainty.png` (16 bit; the standard deviation over the passes, that is the root of UPLC's variance, as the
    variance itself is too small to see; 65535 is the largest possible one, 0.5), and `a/b_overlay.png`.

    Args:
        output_dir: where to write.
        images: the inputs; their findings go into run.json and the exit code.
        tasks: names, in the order of the maps.
        probability, uncertainty, overlay: what to write beside masks.
        options: settings for run.json.
        weights: the weights file, hashed into run.json.
    """

    def __init__(
        self,
        output_dir: str,
        images: InputImages,
        tasks: str | Sequence[str],
        probability: bool = False,
        uncertainty: bool = False,
        overlay: bool = False,
        options: Mapping[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        self.folder, self.images = Path(output_dir), images
        self.tasks = registry.find_all(tasks)
        self.probability, self.overlay = switch("probability", probability), switch("overlay", overlay)
        self.uncertainty = switch("uncertainty", uncertainty)
        self.options, self.weights = dict(options or {}), weights
        self.outputs: list[Path] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def _start(self, engine: Engine) -> None:
        inputs = [item["image"] for item in self.images.items] + ([self.weights] if self.weights else [])
        self.record = RunRecord(self.folder / "run.json", "predict", self.options, inputs)
        for path, reason in self.images.findings:
            self.record.finding(path, reason)
        self.record.write("running")

    def _save(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.save(item["image_path"], item["name"], output["probability"], output.get("uncertainty"))

    def save(self, image: str, name: str, probability: Tensor, uncertainty: Tensor | None) -> None:
        """Write the files of one image; `probability` and `uncertainty` are (K, H, W) at the original size."""
        maps = np.asarray(probability.cpu(), np.float32).clip(0, 1)
        masks = [one > THRESHOLD for one in maps]
        base = self.folder / name
        for index, task in enumerate(self.tasks):
            beginning = base.with_name(f"{base.name}_{task.slug}")
            self._write(write_mask, beginning, "", masks[index])
            if self.probability:
                self._write(write_png16, beginning, "_probability", maps[index])
            if self.uncertainty and uncertainty is not None:
                share = np.sqrt(np.asarray(uncertainty[index].cpu(), np.float32).clip(0)) / LARGEST_DEVIATION
                self._write(write_png16, beginning, "_uncertainty", share.clip(0, 1))
        if self.overlay:
            path = base.with_name(f"{base.name}_overlay.png")
            write_overlay(path, to_grey(read_image(image).pixels), masks, [task.colour for task in self.tasks])
            self.outputs.append(path)

    def _write(self, write: Any, beginning: Path, suffix: str, values: np.ndarray) -> None:
        path = beginning.with_name(f"{beginning.name}{suffix}.png")
        write(path, values)
        self.outputs.append(path)

    def finish(self) -> int:
        """Write run.json; returns the exit code: 0, 3 when some inputs were refused, 2 when all were."""
        if not hasattr(self, "record"):  # nothing readable was there, so the engine never started
            self._start(Engine(lambda *_: None))
        status, code = ("partial", EXIT_PARTIAL) if self.images.findings else ("finished", EXIT_OK)
        if not self.images.items:
            status, code = "failed", EXIT_BAD_INPUT
        results = {"images": len(self.images.items), "refused": len(self.images.findings)}
        self.record.write(status, self.outputs, results)
        logger.info("%d images segmented, %d refused: %s", *results.values(), self.record.path)
        return code
