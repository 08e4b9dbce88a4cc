"""The difference between an exported file and its network, measured by running both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from propl_monai.data.transforms import Normalised
from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network

LARGEST_DIFFERENCE = 1e-4  # of a probability, float32
EXACT = 0.0  # for a file that runs through the same code: its logits must be equal as well
LARGEST_DISAGREEMENT = 1e-4  # share of pixels with another sign of the logit
BATCHES = (1, 2, 3, 4)  # images at each of five sizes: 50 in all
Runner = Callable[[Tensor, Tensor], Tensor]


def require(*modules: str) -> None:
    """Import packages of the extra `export`."""
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ProPLError(module, "is not installed", "pip install 'propl-monai[export]'") from error


def onnx_runner(path: Path | str) -> Runner:
    """An ONNX file as a function of image and task, by ONNX Runtime on the CPU."""
    require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor, task: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"image": image.numpy(), "task": task.numpy()})[0])

    return run


def program_runner(path: Path | str) -> Runner:
    """A file of `torch.export` as a function of image and task, on the CPU. Such a file is a program: load only your own.

    The conditions on sizes that torch noted while it followed the network are not checked, as they refuse a batch of one; the
    program itself holds for every size, which `compare` measures.
    """
    return torch.export.load(path).module(check_guards=False)


def safetensors_runner(path: Path | str) -> Runner:
    """A safetensors file as a function of image and task, by this package, with the chosen decoder."""
    network, _ = load_network(path)
    return lambda image, task: network(image, task=task)


def parity_inputs(tasks: int, size: Sequence[int], normalisation: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Fifty images of noise over smooth shades, and the indices of their tasks, in turn: (B, 1, H, W) and (B,).

    Three in five have the size that the network was trained at; the others are larger, not divisible by any stride, or
    wide.

    Args:
        tasks: their number.
        size: height and width.
        normalisation: of grey levels between 0 and 1, see `transforms.Normalised`.
    """
    normalise = Normalised("image", normalisation)
    height, width = size
    generator = torch.Generator().manual_seed(0)
    number = 0
    for rows, columns in [(height, width)] * 3 + [(height + 37, width + 5), (max(height // 2, 32), width + 32)]:
        for batch in BATCHES:
            shades = torch.randn(batch, 1, 6, 6, generator=generator)
            noise = torch.randn(batch, 1, rows, columns, generator=generator)
            smooth = functional.interpolate(shades, (rows, columns), mode="bicubic", align_corners=False)
            grey = (1.5 * smooth + 0.5 * noise).sigmoid()
            image = torch.stack([normalise({"image": one})["image"] for one in grey])
            yield image, torch.arange(number, number + batch) % tasks
            number += batch


@torch.no_grad()
def compare(
    network: ProPL,
    run: Runner,
    inputs: Iterable[tuple[Tensor, Tensor]],
    decoder: str | None = None,
    allowed: float = LARGEST_DIFFERENCE,
) -> dict[str, Any]:
    """The largest difference of a probability, and the share of pixels of the masks that differ, with their limits.

    The largest difference of a logit is recorded beside them. It has no limit of its own: the rounding error of a logit
    grows with its size, and longer training makes logits larger.

    Args:
        network: in eval mode, on the CPU.
        run: the exported file.
        inputs: images and task numbers, see `parity_inputs`.
        decoder: of the network, None for its choice.
        allowed: difference of a probability, recorded for `require_parity`.
    """
    images, differing, pixels, of_logits, of_probabilities = 0, 0, 0, 0.0, 0.0
    sizes: list[list[int]] = []
    for image, task in inputs:
        wanted, found = network(image, task=task, decoder=decoder), run(image, task)
        of_logits = max(of_logits, _largest_difference(found, wanted))
        of_probabilities = max(of_probabilities, _largest_difference(found.sigmoid(), wanted.sigmoid()))
        differing += int(((found > 0) != (wanted > 0)).sum())
        pixels, images = pixels + wanted.numel(), images + len(image)
        if list(image.shape[-2:]) not in sizes:
            sizes.append(list(image.shape[-2:]))
    return {
        "inputs": images,
        "sizes": sizes,
        "largest_logit_difference": of_logits,
        "largest_probability_difference": of_probabilities,
        "limit_of_difference": allowed,
        "mask_disagreement": differing / pixels,
        "limit_of_disagreement": LARGEST_DISAGREEMENT,
    }


def _largest_difference(found: Tensor, wanted: Tensor) -> float:
    # Every comparison with NaN is false; here it counts as an infinite difference.
    return float((found - wanted).abs().nan_to_num(nan=torch.inf).max())


def require_parity(output: Path, parity: dict[str, Any]) -> None:
    """Check the result of `compare` against its limits."""
    kind = "logit" if parity["limit_of_difference"] == EXACT else "probability"
    difference, share = parity[f"largest_{kind}_difference"], parity["mask_disagreement"]
    allowed, allowed_share = parity["limit_of_difference"], parity["limit_of_disagreement"]
    if difference <= allowed and share <= allowed_share:
        return
    fact = (
        f"would differ from the network by {difference:.1e} in a {kind} and in {share:.1e} of the pixels over "
        f"{parity['inputs']} images, where {allowed:.0e} and {allowed_share:.0e} are allowed, so it was not kept"
    )
    raise ProPLError(output, fact, "use the other format, or report this with the versions that `propl info` lists")
