"""Networks that other libraries provide, one line each, as the plain controls beside those with prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError, first_line, unknown
from propl_monai.model.depthwise import speed_up
from propl_monai.model.encoder import STRIDES, Features, VisionEncoder
from propl_monai.model.gelu_linear import remember_less
from propl_monai.model.networks.base import Segmenter, Task, no_text
from propl_monai.tasks import NAMES, find_all

BOUND_TO_SIZE = ("pspnet", "upernet", "swin_unetr")
# Those with instance normalisation, which needs two of the deepest positions: a single one has no deviation.
OF_TWO_POSITIONS = ("swin_unetr", "dynunet")
RANDOM = "none"  # the encoder's name where a network brings its own, without pretrained weights


class Halves(NamedTuple):
    """A network in two halves: image to maps from fine to coarse, the last four at strides 4 … 32; maps to K channels."""

    encoder: nn.Module
    decoder: nn.Module
    widths: tuple[int, ...]


class LibraryNetwork(Segmenter):
    """A network of segmentation_models_pytorch or MONAI with one output channel per task, of which the asked one is taken.

    The task enters nowhere else: the library's network stays as it is, one encoding serves all tasks, and with one task
    it is that network, unconditioned ("one model a task"). Scale and shift of a map would be a network of our own.

    The networks of segmentation_models_pytorch have the encoder and the pretrained weights of all others here, not those
    of their papers: SegFormer is its decoder of linear layers without the MiT encoder, DeepLabv3+ and PSPNet keep the
    dilation of theirs (strides 16 and 8). Swin UNETR and DynUNet of MONAI come with encoders of their own: random weights.
    Pictures are padded to multiples of 32 with the values of their edges, for these two to 64 at least.

    Args:
        library_model: one of `MODELS`.
        encoder: a timm model name, see `VisionEncoder`; without effect on Swin UNETR and DynUNet.
        tasks: names, in the order of their numbers.
        prompts: None; anything else is refused.
        default_task: the task when none is given; None makes that an error.
    """

    name = "library"
    required = frozenset({"library_model", "encoder", "tasks"})
    encodes_once = True

    def __init__(
        self,
        library_model: str = "unet",
        encoder: str = "convnext_tiny",
        tasks: Sequence[str] = NAMES,
        prompts: str | None = None,
        default_task: str | None = None,
    ) -> None:
        super().__init__()
        if prompts is not None:
            raise no_text(self.name)
        if library_model not in MODELS:
            raise unknown("library_model", "network of a library", library_model, MODELS)
        self.library_model, self.default_task = library_model, default_task
        self.least_side = (2 if library_model in OF_TWO_POSITIONS else 1) * STRIDES[-1]
        self.tasks = [task.name for task in find_all(tasks)]
        halves = MODELS[library_model](encoder, len(self.tasks))
        # Another name where no pretrained weights fit: `start_from` fills, and `another` keeps, an "encoder" alone.
        self._first = "encoder" if isinstance(halves.encoder, VisionEncoder) else "contracting"
        self.add_module(self._first, halves.encoder)
        self.decoder, self._widths = halves.decoder, halves.widths

    @property
    def task_names(self) -> list[str]:
        """The tasks of the output channels."""
        return self.tasks

    @property
    def options(self) -> dict[str, Any]:
        """The library's network, the encoder ("none" where it has its own) and the tasks."""
        encoder = getattr(self.get_submodule(self._first), "name", RANDOM)
        return {"library_model": self.library_model, "encoder": encoder, "tasks": self.tasks}

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of v1 … v4."""
        return self._widths

    @property
    def bound_to_size(self) -> bool:
        """Where maps are pooled to grids, or cut into windows, whose layout follows the size."""
        return self.library_model in BOUND_TO_SIZE

    def features(self, image: Tensor, task: Task = None) -> Features:
        """The maps of images (B, 1 or 3, H, W), which do not depend on the task."""
        height, width = image.shape[-2:]
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        rows, columns = (max(-side % STRIDES[-1], self.least_side - side) for side in (height, width))
        if rows or columns:
            image = functional.pad(image, (0, columns, 0, rows), mode="replicate")
        *finer, v1, v2, v3, v4 = self.get_submodule(self._first)(image)
        return Features(v1, v2, v3, v4, height, width, tuple(finer))

    def logits(self, features: Features, task: Task = None, decoder: str | None = None) -> Tensor:
        """Features to logits (B, 1, H, W)."""
        return self._decode(features, self.numbers(task, len(features.v4)))

    def segment(self, image: Tensor, numbers: Tensor, decoder: str) -> Tensor:
        """Images (B, 1, H, W) and task numbers (B,) to logits (B, 1, H, W), without any check."""
        return self._decode(self.features(image), numbers)

    def _decode(self, features: Features, numbers: Tensor) -> Tensor:
        each = self.decoder([*features.finer, *features[:4]])[..., : features.height, : features.width]
        return each.gather(1, numbers[:, None, None, None].expand(-1, 1, *each.shape[2:]))


def _needed(package: str) -> Any:
    """A package of the extra `networks`."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ProPLError(package, "is not installed", "pip install 'propl-monai[networks]'") from error


# --- segmentation_models_pytorch


class TimmMaps(VisionEncoder):
    """A timm backbone that a library has built, as all of its maps; pretrained weights are loaded as into any encoder.

    Args:
        name: of the timm model.
        backbone: that model, maps only.
    """

    def __init__(self, name: str, backbone: nn.Module) -> None:
        nn.Module.__init__(self)
        self.name, self.backbone = name, backbone
        remember_less(backbone)
        speed_up(backbone)

    def forward(self, image: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Images (B, 3, H, W), whose sides are multiples of 32, to maps at strides 2, 4 … 32; that of 2 may be empty."""
        maps = self.backbone(image)
        if len(maps) == len(STRIDES):
            maps = [image.new_empty((len(image), 0, image.shape[2] // 2, image.shape[3] // 2)), *maps]
        return maps


class SmpDecoder(nn.Module):
    """Decoder and head of a network of segmentation_models_pytorch, which want no more of the image than its size."""

    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder, self.head = decoder, head
        for module in self.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = BatchNormOfOne

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps to (B, K, H, W)."""
        v1 = maps[-4]
        image = v1.new_empty((v1.shape[0], 0, STRIDES[0] * v1.shape[2], STRIDES[0] * v1.shape[3]))
        return self.head(self.decoder([image, *maps]))


class BatchNormOfOne(nn.BatchNorm2d):
    """Where pooling leaves one value of one image, which has no deviation, BatchNorm takes its running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _smp(kind: str, **options: Any) -> Callable[[str, int], Halves]:
    """A builder, of encoder and number of tasks, of a class of segmentation_models_pytorch."""

    def build(encoder: str, count: int) -> Halves:
        library = _needed("segmentation_models_pytorch")
        try:
            made = getattr(library, kind)(f"tu-{encoder}", encoder_weights=None, classes=count, **options)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            fact = f"does not fit {kind} of segmentation_models_pytorch ({first_line(error)})"
            raise ProPLError(
                f"encoder '{encoder}'", fact, "take an EfficientNet, ConvNeXt or ResNet of timm"
            ) from error
        widths = tuple(made.encoder.out_channels[-4:])
        return Halves(TimmMaps(encoder, made.encoder.model), SmpDecoder(made.decoder, made.segmentation_head), widths)

    return build


# --- MONAI


class DynUNetHalf(nn.Module):
    """The contracting path of MONAI's DynUNet: a block per level."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to maps at strides 1 … 32."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class DynUNetDecoder(nn.Module):
    """The expanding path of MONAI's DynUNet."""

    def __init__(self, blocks: nn.ModuleList, out: nn.Module) -> None:
        super().__init__()
        self.blocks, self.out = blocks, out

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps to (B, K, H, W)."""
        x = maps[-1]
        for block, skip in zip(self.blocks, reversed(maps[:-1]), strict=True):
            x = block(x, skip)
        return self.out(x)


def _dynunet(encoder: str, count: int) -> Halves:
    """DynUNet in 2-D with six levels and MONAI's own widths, without deep supervision."""
    nets = import_module("monai.networks.nets")
    made = nets.DynUNet(2, 3, count, [3] * 6, [1, *[2] * 5], [2] * 5)
    first = DynUNetHalf(made.input_block, *made.downsamples, made.bottleneck)
    return Halves(first, DynUNetDecoder(made.upsamples, made.output_block), tuple(made.filters[-4:]))


class SwinHalf(nn.Module):
    """The Swin transformer of MONAI's Swin UNETR, and its block on the image."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.stem, self.transformer = made.encoder1, made.swinViT

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to maps at strides 1 … 32."""
        return [self.stem(x), *self.transformer(x, True)]


class SwinDecoder(nn.Module):
    """The other blocks of MONAI's Swin UNETR."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.sides = nn.ModuleList([made.encoder2, made.encoder3, made.encoder4, nn.Identity(), made.encoder10])
        self.ups = nn.ModuleList([made.decoder5, made.decoder4, made.decoder3, made.decoder2, made.decoder1])
        self.out = made.out

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps to (B, K, H, W)."""
        skips = [maps[0], *(side(one) for side, one in zip(self.sides, maps[1:], strict=True))]
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.out(x)


def _swin_unetr(encoder: str, count: int, size: int = 24) -> Halves:
    """Swin UNETR in 2-D, its smaller published width."""
    _needed("einops")
    with torch.device("cpu"):  # its constructor reads values, which the device of `load_network` has not
        made = import_module("monai.networks.nets").SwinUNETR(3, count, feature_size=size, spatial_dims=2)
    return Halves(SwinHalf(made), SwinDecoder(made), tuple(size * factor for factor in (2, 4, 8, 16)))


MODELS: dict[str, Callable[[str, int], Halves]] = {
    "unet": _smp("Unet"),
    "unetplusplus": _smp("UnetPlusPlus"),
    "deeplabv3plus": _smp("DeepLabV3Plus", encoder_output_stride=16),
    "pspnet": _smp("PSPNet", encoder_depth=5, output_stride=8),
    "segformer": _smp("Segformer"),
    "upernet": _smp("UPerNet"),
    "swin_unetr": _swin_unetr,
    "dynunet": _dynunet,
}
