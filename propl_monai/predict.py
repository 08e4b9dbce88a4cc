"""The bundle's inference through MONAI: the inferer that asks for tasks, the images, and what is written for each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from propl_monai import tasks as registry
from propl_monai import uplc
from propl_monai.encoder import Features
from propl_monai.errors import ProPLError
from propl_monai.images import read_image
from propl_monai.input_files import find_inputs
from propl_monai.network import ProPL, mean_logits
from propl_monai.options import switch
from propl_monai.prediction import THRESHOLD, from_maps, write_predictions
from propl_monai.run_record import RunRecord, conclude

__all__ = ["THRESHOLD", "InputImages", "PromptInferer", "SavePredictions"]
ROWS = 8  # pairs of image and task that are decoded together: fewer waste time on small batches, more only memory
logger = logging.getLogger(__name__)


class PromptInferer(Inferer):
    """Encodes a batch once and decodes it for every task that is asked for, several tasks together where images are few.

    A network rounds differently in batches of another size: a logit may change by up to about 1e-4 with the batch and
    the number of tasks.

    Args:
        tasks: one name or several; None when the batch brings its own, see `__call__`.
        decoder: "sd", "pd", "mean", or None for the network's choice.
        uncertainty_passes: N perturbed passes of decoder sd for the variance of eq. 4; 0 for none.
        perturbation, strength: of these passes, see `uplc.perturb`.
        tta: average the probabilities with those of the picture mirrored left to right. The network then answers as if
            it did not know left from right; see docs/predict.md before using it on hearts. The variance is that of the
            picture as it is.
        seed: of the perturbations, drawn anew for every image and task, so that neither the batch nor the order of the
            images changes a result; None draws them from torch's generator as it stands.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | None = None,
        decoder: str | None = None,
        uncertainty_passes: int = 0,
        perturbation: str = "element",
        strength: float = 0.3,
        tta: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.tasks = None if tasks is None else [task.name for task in registry.find_all(tasks)]
        self.decoder, self.passes = decoder, uncertainty_passes
        self.perturbation, self.strength = perturbation, strength
        self.tta, self.seed = switch("tta", tta), seed

    def __call__(self, inputs: Tensor, network: ProPL, task: Sequence[str] | None = None, *_: Any, **__: Any) -> Tensor:
        """Segment a batch.

        Args:
            inputs: (B, 1, H, W), normalised.
            network: a `ProPL`.
            task: the task of each image; stands in for `tasks` when that is None.

        Returns:
            Logits (B, K, H, W) for K tasks (1 when `task` is used), followed by K variances in [0, 0.25] when
            uncertainty is wanted.

        Raises:
            ProPLError: an unknown task, or a decoder that the network was built without.
        """
        if self.passes:
            network.require_decoder("sd", "uncertainty")
        asked: Sequence[str | Sequence[str] | None] = [task] if self.tasks is None else self.tasks
        texts = [network.text(names, len(inputs)) for names in asked]
        features = network.encode(inputs)
        maps = self.logits(network, features, texts)
        if self.tta:
            mirrored = self.logits(network, network.encode(inputs.flip(-1)), texts)
            maps = mean_logits(maps, mirrored.flip(-1))
        variances = [self._variance(network, features, text) for text in texts] if self.passes else []
        return torch.cat([maps, *variances], dim=1)

    def logits(self, network: ProPL, features: Features, texts: Sequence[Tensor]) -> Tensor:
        """Decode features of a batch for K texts, each (B, L, E), to logits (B, K, H, W), float32."""
        decoder = self.decoder or network.chosen_decoder
        together = max(1, ROWS // len(features.v4))
        each: list[Tensor] = []
        for start in range(0, len(texts), together):
            some = texts[start : start + together]
            rows = network.decode(_repeated(features, len(some)), torch.cat(list(some)), decoder)
            each += rows.float().chunk(len(some))
        return torch.cat(each, dim=1)

    def _variance(self, network: ProPL, features: Features, text: Tensor) -> Tensor:
        if self.seed is None:
            return self._spread(network, features, text)
        each = []
        for index in range(len(text)):
            with _seeded(self.seed, text.device):
                each.append(self._spread(network, _only(features, index), text[index : index + 1]))
        return torch.cat(each)

    def _spread(self, network: ProPL, features: Features, text: Tensor) -> Tensor:
        passes = uplc.stochastic_passes(
            lambda v4: network.decode(features._replace(v4=v4), text, "sd"),
            features.v4,
            self.passes,
            self.perturbation,
            self.strength,
        )
        return uplc.mean_and_variance(passes)[1]


def _only(features: Features, index: int) -> Features:
    """The features of one image of a batch."""
    one = slice(index, index + 1)
    return features._replace(v1=features.v1[one], v2=features.v2[one], v3=features.v3[one], v4=features.v4[one])


def _repeated(features: Features, times: int) -> Features:
    """The features of a batch, so many times one after the other."""
    if times == 1:
        return features
    v1, v2, v3, v4 = (torch.cat([one] * times) for one in features[:4])
    return features._replace(v1=v1, v2=v2, v3=v3, v4=v4)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed, and leave torch's generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


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
        self.items: list[dict[str, str]] = []
        self.findings: list[tuple[str, str]] = []
        for file, name in find_inputs([path], output_dir):
            self._add(file, name)

    def _add(self, file: Path, name: str) -> None:
        try:
            read_image(file)
        except ProPLError as error:
            self.findings.append((str(file), f"{error.fact}; {error.cure}"))
            logger.error("%s", error)
        else:
            self.items.append({"image": str(file), "image_path": str(file), "name": name})


class SavePredictions:
    """A handler of the inference evaluator: writes masks, maps and overlays, and run.json.

    The files are those of `prediction.write_predictions`.

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
        names = [task.name for task in self.tasks]
        predictions = from_maps(names, probability, uncertainty if self.uncertainty else None)
        pixels = read_image(image).pixels if self.overlay else None
        self.outputs += write_predictions(self.folder / name, predictions, self.probability, pixels)

    def finish(self) -> int:
        """Write run.json; returns the exit code: 0, 3 when some inputs were refused, 2 when all were."""
        if not hasattr(self, "record"):  # nothing readable was there, so the engine never started
            self._start(Engine(lambda *_: None))
        results = {"images": len(self.images.items), "refused": len(self.images.findings)}
        status, code = conclude(*results.values())
        self.record.write(status, self.outputs, results)
        logger.info("%d images segmented, %d refused: %s", *results.values(), self.record.path)
        return code
