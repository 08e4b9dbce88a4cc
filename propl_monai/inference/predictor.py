"""Prediction from Python, `Predictor.from_bundle(path)(image, task)`: reads tensors, header and metadata, runs no config."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np

from propl_monai import tasks as registry
from propl_monai.common.options import switch
from propl_monai.errors import ProPLError, unknown
from propl_monai.images import Cine, Picture, to_grey
from propl_monai.images.read import Image, as_picture
from propl_monai.images.sector import Box, box_of_frames, crop_box, cropped, in_place, whole
from propl_monai.inference.engines.base import PASSES, PERTURBATION, SEED, STRENGTH, UNCERTAINTIES, Engine
from propl_monai.inference.engines.choice import MakeGraph, choose_graph, require_torch
from propl_monai.inference.known import Known, read_known
from propl_monai.inference.prediction import THRESHOLD, Prediction, from_maps, from_masks
from propl_monai.model.bundle_folder import Described, describe_bundle, describe_shipped, open_network

if TYPE_CHECKING:
    import torch

    from propl_monai.inference.engines.torch_engine import TorchEngine
    from propl_monai.model.networks.base import Segmenter

_OPENING = threading.Lock()  # of torch, when it is wanted later


class Prepared(NamedTuple):
    """A picture on the network's grid, normalised (1, rows, columns), of the engine that goes on with it.

    Attributes:
        image: an array, or a tensor of torch.
        size: (height, width) of the picture.
        spacing_mm: of its pixels, if known.
        engine: that prepared it.
        box: the part of the picture that the network sees; the whole of it unless the border is cut.
    """

    image: Any
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    engine: Engine
    box: Box


class Predictor:
    """A network with its preprocessing: pictures of any size in, masks of their size out. Threads may share it.

    Args:
        network: with a prompt bank; or described weights, see `from_bundle`; None for those that came with the package,
            whose header says all the rest.
        spatial_size, normalisation: of its training, see `transforms.training`.
        device: such as "cpu" or "cuda:1"; None for the first GPU, else the CPU.
        decoder: "sd", "pd", "mean", or None for the one that was best on validation.
        tta: average with the picture mirrored left to right, see `TaskDecoder`.
        uncertainty_of: what the passes differ in whose standard deviation is the uncertainty: "views" of the picture (mirror,
            scale, gamma), or "dropout" on v4 in decoder sd (the paper, eq. 4).
        threshold: of the probability, between 0 and 1, above which a pixel is the target.
        batch: pictures that go through the network together.
        weights_sha256: of the weights file.
        about: name and version of the bundle.
        engine: "torch", "onnx" (ONNX Runtime, which must be installed, and weights with an ONNX form beside them or in the
            cache), or "auto": onnx where it can answer, on a CPU, else torch. A network in memory has torch alone.
        make_graph: makes an ONNX form that is missing; None makes none.
        known: what the scores of a prediction are computed from; None for those beside described weights, or for none.
        crop_sector: cut the black border around the scan before the network, see `images.sector`; None does as the training
            of the weights did. Results come at the size of the whole picture, 0 in what was cut.

    Example:
        >>> predictor = Predictor()                                                             # doctest: +SKIP
        >>> head = predictor("scan.png", "fetal head")                                          # doctest: +SKIP
        >>> atrium, ventricle = predictor("heart.dcm", ["left atrium", "left ventricle"])       # doctest: +SKIP
    """

    def __init__(
        self,
        network: Segmenter | Described | None = None,
        spatial_size: Sequence[int] = (),
        normalisation: str = "",
        *,
        device: str | torch.device | None = None,
        decoder: str | None = None,
        tta: bool = False,
        uncertainty_of: str = UNCERTAINTIES[0],
        threshold: float = THRESHOLD,
        batch: int = 8,
        weights_sha256: str | None = None,
        about: dict[str, str] | None = None,
        engine: str = "auto",
        make_graph: MakeGraph | None = None,
        known: Known | None = None,
        crop_sector: bool | None = None,
    ) -> None:
        if not 0 < threshold < 1:
            cure = "0.5 is what the network was trained for"
            raise ProPLError("threshold", f"{threshold} is not between 0 and 1", cure)
        if uncertainty_of not in UNCERTAINTIES:
            raise unknown("uncertainty_of", "kind of uncertainty", uncertainty_of, UNCERTAINTIES)
        if batch < 1:
            raise ProPLError("batch", f"{batch} is below 1", "give 1 or more")
        self.tta, self.threshold, self.batch = switch("tta", tta), float(threshold), batch
        self._asked, self._asked_engine, self.uncertainty_of = (device, decoder), engine, uncertainty_of
        self._described = describe_shipped() if network is None else network if isinstance(network, Described) else None
        self._torch: TorchEngine | None = None
        graph = None
        if self._described is None:
            if engine == "onnx":
                raise ProPLError(
                    "engine onnx", "needs a file of weights", "give one to from_bundle, or leave engine out"
                )
            self.spatial_size, self.normalisation = tuple(spatial_size), normalisation
            self._torch = self._with_torch(cast("Segmenter", network))
        else:
            self.spatial_size, self.normalisation = self._described.spatial_size, self._described.normalisation
            weights_sha256, about = self._described.weights_sha256, self._described.about
            known = known or read_known(self._described.weights, weights_sha256)
            graph = choose_graph(engine, self._described, device, decoder, make_graph)
        self.weights_sha256, self.about, self.known = weights_sha256, dict(about or {}), known
        trained_so = self._described is not None and self._described.crop_sector
        self.crop_sector = trained_so if crop_sector is None else switch("crop_sector", crop_sector)
        self._engine: Engine
        if graph is not None and self._described is not None:
            from propl_monai.inference.engines.onnx_engine import OnnxEngine

            self._engine, self.decoder = OnnxEngine(self._described, graph, self.tta), graph.decoder
            self.tasks: tuple[str, ...] = tuple(self._described.header["architecture"]["tasks"])
        else:
            self._engine, self.decoder = self._by_torch, self._by_torch.decoder
            self.tasks = self._by_torch.tasks
        if known:
            known.require(self.tasks)

    @classmethod
    def from_bundle(cls, path: str | Path, *, sha256: str | None = None, **options: Any) -> Predictor:
        """Open a bundle, the folder of a training, or a weights file.

        Of a bundle only `models/model.safetensors`, its ONNX form and its scores beside it, and `configs/metadata.json` are
        read, not its configs, which are programs. Nothing is unpickled.

        Args:
            path: a folder with models/model.safetensors, or a safetensors file.
            sha256: expected SHA-256 of the weights file, if you know it.
            options: device, decoder, tta, threshold, batch, engine, crop_sector; see the class.
        """
        return cls(describe_bundle(Path(path), sha256), **options)

    def engine_of(self, uncertainty: bool = False) -> str:
        """What runs the network: "torch" or "onnx"; with uncertainty it is always torch."""
        return "torch" if uncertainty else self._engine.name

    @property
    def device(self) -> Any:
        """Where it computes; `str` gives its name."""
        return self._engine.device

    @property
    def network(self) -> Segmenter:
        """The network in torch, opened when it is first asked for."""
        return self._by_torch.network

    @property
    def _by_torch(self) -> TorchEngine:
        with _OPENING:
            if self._torch is None:
                assert self._described is not None
                require_torch("the engine torch")
                self._torch = self._with_torch(open_network(self._described))
        return self._torch

    def _with_torch(self, network: Segmenter) -> TorchEngine:
        from propl_monai.inference.engines.torch_engine import TorchEngine

        device, decoder = self._asked
        return TorchEngine(
            network, self.spatial_size, self.normalisation, device, decoder, self.tta, self.uncertainty_of
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but picture and task that a result depends on, as JSON values."""
        cut = {"crop_sector": True} if self.crop_sector else {}  # so that journals from before there was a choice go on
        return {
            **cut,
            "weights_sha256": self.weights_sha256,
            "decoder": self.decoder,
            "tta": self.tta,
            "threshold": self.threshold,
            "spatial_size": list(self.spatial_size),
            "normalisation": self.normalisation,
            "uncertainty": {"of": "views"}
            if self.uncertainty_of == "views"
            else {"passes": PASSES, "perturbation": PERTURBATION, "strength": STRENGTH, "seed": SEED},
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
            uncertainty: add `Prediction.uncertainty`, see `uncertainty_of`.

        Returns:
            One prediction, or a list in the order of the tasks.
        """
        found = self.predict([as_picture(image)], task, uncertainty)[0]
        return found[0] if isinstance(task, str) else found

    def predict(
        self, pictures: Sequence[Picture], task: str | Sequence[str], uncertainty: bool = False
    ) -> list[list[Prediction]]:
        """Segment many pictures in batches: one list per picture, in the order of the tasks.

        A probability or variance changes with the batch and the number of tasks, by rounding, by less than 1e-5.
        """
        names = self.names(task)
        results: list[list[Prediction]] = []
        for start in range(0, len(pictures), self.batch):
            prepared = [self.prepare(one, uncertainty) for one in pictures[start : start + self.batch]]
            maps, pooled = self.answer(prepared, names, uncertainty)
            features = [None] * len(prepared) if pooled is None else pooled
            results += [
                self.finish(one, some, names, row) for one, some, row in zip(prepared, maps, features, strict=True)
            ]
        return results

    def prepare(self, picture: Picture, uncertainty: bool = False, box: Box | None = None) -> Prepared:
        """The first of three steps, which `predict_paths` takes in three threads: to the network's grid.

        Args:
            picture: of any size.
            uncertainty: wanted in the next step, so that torch takes all of them.
            box: the part to look at, as that of a cine's sector; None for that of the picture, if the border is cut.
        """
        engine = self.require_uncertainty() if uncertainty else self._engine
        grey = to_grey(picture.pixels)
        box = box or (crop_box(grey) if self.crop_sector else whole(grey))
        seen = engine.prepare(cropped(grey, box))
        return Prepared(seen, (grey.shape[0], grey.shape[1]), picture.spacing_mm, engine, box)

    def box_of(self, cine: Cine) -> Box | None:
        """The part to look at in all frames of a cine; None where each picture is looked at for itself."""
        return box_of_frames(cine) if self.crop_sector and cine.count > 1 else None

    def answer(
        self, prepared: Sequence[Prepared], names: list[str], uncertainty: bool = False
    ) -> tuple[Any, np.ndarray | None]:
        """The second step: one batch through the network.

        Returns:
            (B, K, rows, columns) logits of K tasks, followed by K variances where uncertainty is wanted, on the CPU; and the
            pooled features (B, C) that the scores are computed from.
        """
        return prepared[0].engine.answer([one.image for one in prepared], names, uncertainty)

    def maps(self, prepared: Sequence[Prepared], names: list[str], uncertainty: bool = False) -> Any:
        """The maps of `answer` alone."""
        return self.answer(prepared, names, uncertainty)[0]

    def pooled(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """The pooled features of `answer` alone, (B, C)."""
        features = self.answer(prepared, [self.tasks[0]])[1]
        if features is None:
            raise ProPLError(
                f"network '{self.network.name}'", "has no features that do not depend on the task", "use propl"
            )
        return features

    def finish(
        self,
        prepared: Prepared,
        maps: Any,
        names: list[str],
        pooled: np.ndarray | None = None,
        masks_alone: bool = False,
    ) -> list[Prediction]:
        """The third step: maps (K or 2K, rows, columns) of a picture to one prediction per task, at its own size.

        With pooled features (C,) and weights with `known.safetensors`, each has its scores. `masks_alone` leaves
        `probability` empty, (0, 0), which saves time; the masks are the same.
        """
        top, left, bottom, right = prepared.box
        size, place = (bottom - top, right - left), (prepared.box, prepared.size)
        scores = None if self.known is None or pooled is None else self.known.scores(pooled, names)
        if masks_alone:
            masks = in_place(prepared.engine.masks(maps, size, len(names), self.threshold), *place)
            return from_masks(names, masks, prepared.spacing_mm, scores)
        found = prepared.engine.finish(maps, size, len(names))
        probability, variance = (None if one is None else in_place(one, *place) for one in found)
        return from_maps(names, probability, variance, self.threshold, prepared.spacing_mm, scores)

    def require_uncertainty(self) -> TorchEngine:
        """The engine that gives uncertainty, after a check that it may: torch, and of dropout decoder sd."""
        if self._asked_engine == "onnx":
            raise ProPLError("uncertainty", "is not in the ONNX form", "leave it out, or use the engine torch or auto")
        require_torch("uncertainty")
        if self.uncertainty_of == "dropout":
            self.network.require_uncertainty()
        return self._by_torch

    def names(self, task: str | Sequence[str]) -> list[str]:
        """The names of tasks given by name, code, slug, synonym or sentence, see `tasks.understand`."""
        names = [registry.understand(one).name for one in ([task] if isinstance(task, str) else task)]
        if not names:
            raise ProPLError("task", "none was given", "give one of: " + ", ".join(self.tasks))
        for name in names:
            if name not in self.tasks:
                raise ProPLError("task", f"these weights do not know '{name}'", "they know " + ", ".join(self.tasks))
        return names
