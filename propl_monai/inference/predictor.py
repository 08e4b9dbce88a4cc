"""Prediction from Python, `Predictor.from_bundle(path)(image, task)`: reads tensors, header and metadata, runs no config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from propl_monai import tasks as registry
from propl_monai.common.options import switch
from propl_monai.data.transforms import on_grid
from propl_monai.errors import ProPLError, first_line
from propl_monai.images import Picture, read_image, to_grey
from propl_monai.inference.inferer import PromptInferer
from propl_monai.inference.known import Known, read_known
from propl_monai.inference.postprocess import Probabilitiesd, RestoreSized
from propl_monai.inference.prediction import THRESHOLD, Prediction, from_maps
from propl_monai.model.bundle_folder import find_weights, open_bundle, open_shipped, shipped_weights
from propl_monai.model.network import ProPL

PASSES, PERTURBATION, STRENGTH, SEED = 8, "element", 0.3, 0  # of the uncertainty, as in the bundle's inference.json
Image = str | Path | np.ndarray | Picture


class Prepared(NamedTuple):
    """A picture on the network's grid, normalised (1, rows, columns); its own (height, width); its pixel size, if known."""

    image: Tensor
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None


class Predictor:
    """A network with its preprocessing: pictures of any size in, masks of their size out. Threads may share it.

    Args:
        network: with a prompt bank; None for the weights that came with the package, whose header says all the rest.
        spatial_size, normalisation: of its training, see `transforms.training`.
        device: such as "cpu" or "cuda:1"; None for the first GPU, else the CPU.
        decoder: "sd", "pd", "mean", or None for the one that was best on validation.
        tta: average with the picture mirrored left to right, see `PromptInferer`.
        threshold: of the probability, between 0 and 1, above which a pixel is the target.
        batch: pictures that go through the network together.
        weights_sha256: of the weights file.
        about: name and version of the bundle.
        known: what the scores of a prediction are computed from; None for no scores.

    Example:
        >>> predictor = Predictor()                                                             # doctest: +SKIP
        >>> head = predictor("scan.png", "fetal head")                                          # doctest: +SKIP
        >>> atrium, ventricle = predictor("heart.dcm", ["left atrium", "left ventricle"])       # doctest: +SKIP
    """

    def __init__(
        self,
        network: ProPL | None = None,
        spatial_size: Sequence[int] = (),
        normalisation: str = "",
        *,
        device: str | torch.device | None = None,
        decoder: str | None = None,
        tta: bool = False,
        threshold: float = THRESHOLD,
        batch: int = 8,
        weights_sha256: str | None = None,
        about: dict[str, str] | None = None,
        known: Known | None = None,
    ) -> None:
        if network is None:
            network, spatial_size, normalisation, weights_sha256, about = open_shipped()
            known = read_known(shipped_weights(), weights_sha256)
        if network.prompts is None:
            raise ProPLError("network", "has no prompt bank, so it knows no task", "attach_prompts(bank) first")
        network.require_decoder(decoder or network.chosen_decoder)
        if not 0 < threshold < 1:
            cure = "0.5 is what the network was trained for"
            raise ProPLError("threshold", f"{threshold} is not between 0 and 1", cure)
        if batch < 1:
            raise ProPLError("batch", f"{batch} is below 1", "give 1 or more")
        if known:
            known.require(network.prompts.bank.task_names, sum(network.encoder.channels[2:]))
        self.device = _usable(device)
        # Channels last makes convolutions faster on a CPU, those of the decoders by a fifth.
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.tasks: tuple[str, ...] = tuple(network.prompts.bank.task_names)
        self.spatial_size, self.normalisation = tuple(spatial_size), normalisation
        self._to_grid = on_grid(self.spatial_size, normalisation)
        self.decoder, self.tta = decoder or network.chosen_decoder, switch("tta", tta)
        self.threshold, self.batch = float(threshold), batch
        self.weights_sha256, self.about, self.known = weights_sha256, dict(about or {}), known

    @classmethod
    def from_bundle(cls, path: str | Path, *, sha256: str | None = None, **options: Any) -> Predictor:
        """Open a bundle, the folder of a training, or a weights file.

        Of a bundle only `models/model.safetensors`, the `known.safetensors` beside it and `configs/metadata.json` are read,
        not its configs, which are programs. Nothing is unpickled.

        Args:
            path: a folder with models/model.safetensors, or a safetensors file.
            sha256: expected SHA-256 of the weights file, if you know it.
            options: device, decoder, tta, threshold, batch; see the class.
        """
        network, size, normalisation, found, about = open_bundle(Path(path), sha256)
        known = read_known(find_weights(Path(path)), found)
        return cls(network, size, normalisation, weights_sha256=found, about=about, known=known, **options)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but picture and task that a result depends on, as JSON values."""
        return {
            "weights_sha256": self.weights_sha256,
            "decoder": self.decoder,
            "tta": self.tta,
            "threshold": self.threshold,
            "spatial_size": list(self.spatial_size),
            "normalisation": self.normalisation,
            "uncertainty": {"passes": PASSES, "perturbation": PERTURBATION, "strength": STRENGTH, "seed": SEED},
        }

    @overload
    def __call__(self, image: Image, task: str, uncertainty: bool = False) -> Prediction: ...

    @overload
    def __call__(self, image: Image, task: list[str], uncertainty: bool = False) -> list[Prediction]: ...

    def __call__(self, image: Image, task: str | list[str], uncertainty: bool = False) -> Prediction | list[Prediction]:
        """Segment one picture for one task or several; it is encoded once.

        Args:
            image: a file of one frame, uint8 (H, W) or (H, W, 3) RGB, or a `Picture`, whose spacing the result keeps.
            task: name, code or slug; or a list of them.
            uncertainty: add `Prediction.uncertainty`, from perturbed passes.

        Returns:
            One prediction, or a list in the order of the tasks.
        """
        found = self.predict([as_picture(image)], task, uncertainty)[0]
        return found[0] if isinstance(task, str) else found

    def predict(
        self, pictures: Sequence[Picture], task: str | Sequence[str], uncertainty: bool = False
    ) -> list[list[Prediction]]:
        """Segment many pictures in batches: one list per picture, in the order of the tasks.

        The network rounds differently in batches of another size: which pictures share a batch, and how many tasks, changes
        a probability or a variance by less than 1e-5, and a mask only at pixels this close to the threshold.
        """
        names = self.names(task)
        results: list[list[Prediction]] = []
        for start in range(0, len(pictures), self.batch):
            prepared = [self.prepare(one) for one in pictures[start : start + self.batch]]
            answers = zip(prepared, *self.answer(prepared, names, uncertainty), strict=True)
            results += [self.finish(one, maps, names, pooled) for one, maps, pooled in answers]
        return results

    def prepare(self, picture: Picture) -> Prepared:
        """The first of three steps, which `predict_paths` takes in three threads: to the network's grid."""
        # A copy, as torch takes no mirrored array and warns of one that is read-only.
        item = self._to_grid({"image": torch.tensor(np.ascontiguousarray(to_grey(picture.pixels)))[None]})
        return Prepared(item["image"], item["original_size"], picture.spacing_mm)

    @torch.inference_mode()
    def answer(
        self, prepared: Sequence[Prepared], names: list[str], uncertainty: bool = False
    ) -> tuple[Tensor, np.ndarray]:
        """The second step: one batch through the network.

        Returns:
            (B, K, rows, columns) logits of K tasks, followed by K variances where uncertainty is wanted, on the CPU; and the
            pooled features (B, C) that the scores are computed from.
        """
        passes = PASSES if uncertainty else 0
        inferer = PromptInferer(names, self.decoder, passes, PERTURBATION, STRENGTH, self.tta, SEED)
        images = torch.stack([one.image for one in prepared]).to(self.device)
        return inferer(images, self.network).cpu(), inferer.pooled.cpu().numpy()

    def maps(self, prepared: Sequence[Prepared], names: list[str], uncertainty: bool = False) -> Tensor:
        """The maps of `answer` alone."""
        return self.answer(prepared, names, uncertainty)[0]

    @torch.inference_mode()
    def pooled(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """The pooled features of `answer` alone, without decoding anything."""
        images = torch.stack([one.image for one in prepared]).to(self.device)
        return self.network.encode(images).pooled().cpu().numpy()

    @torch.inference_mode()
    def finish(
        self, prepared: Prepared, maps: Tensor, names: list[str], pooled: np.ndarray | None = None
    ) -> list[Prediction]:
        """The third step: maps (K or 2K, rows, columns) of a picture to one prediction per task, at its own size.

        With its pooled features (C,), and weights that come with `known.safetensors`, each has its scores.
        """
        restored = RestoreSized("pred")({"pred": maps, "original_size": prepared.size})
        done = Probabilitiesd("pred", len(names))(restored)
        scores = None if self.known is None or pooled is None else self.known.scores(pooled, names)
        return from_maps(
            names, done["probability"], done.get("uncertainty"), self.threshold, prepared.spacing_mm, scores
        )

    def names(self, task: str | Sequence[str]) -> list[str]:
        """The names of tasks given by name, code or slug."""
        names = [found.name for found in registry.find_all(task, "task")]
        if not names:
            raise ProPLError("task", "none was given", "give one of: " + ", ".join(self.tasks))
        for name in names:
            if name not in self.tasks:
                raise ProPLError("task", f"these weights do not know '{name}'", "they know " + ", ".join(self.tasks))
        return names


def as_picture(image: Image) -> Picture:
    """The picture of a file, of an array, or itself."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    picture = Picture(image) if isinstance(image, np.ndarray) else image
    if not isinstance(picture, Picture):
        raise ProPLError("image", f"a {type(image).__name__} was given", "give a file name, an array or a Picture")
    pixels = picture.pixels
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ProPLError("image", f"{pixels.dtype} {pixels.shape} was given", "give uint8 (H, W), or (H, W, 3) RGB")
    if pixels.size == 0:
        raise ProPLError("image", f"{pixels.shape} holds no pixel", "give at least one row and one column")
    return picture


def _usable(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # unknown, not there, or torch was built without it
        cure = "give cpu, or cuda on a machine with an NVIDIA GPU"
        raise ProPLError("device", f"'{device}' cannot be used ({first_line(error)})", cure) from error
