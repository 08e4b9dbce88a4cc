"""The authors' weights in our network, by their tensor names; every tensor is checked.

The names are those of the public code of ProPL (AAAI 2026), whose encoder is Hugging Face's `ConvNextModel`; its own
tensor names are the same in transformers 4 and 5. No file is read here: the caller loads the state dict
(`weights_only=True`) and hands it over.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL

ENCODER = "convnext_tiny"
TEXT_SHAPE = (24, 768)  # positions and width of CXR-BERT's embeddings
LISTED = 10  # names that an error spells out; the rest are counted

# Our name of a tensor (left) to theirs, applied in this order.
RENAMED = (
    (r"^encoder\.backbone\.stem_0\.", "encoder.model.embeddings.patch_embeddings."),
    (r"^encoder\.backbone\.stem_1\.", "encoder.model.embeddings.layernorm."),
    (r"^encoder\.backbone\.stages_(\d+)\.", r"encoder.model.encoder.stages.\1."),
    (r"(stages\.\d+)\.downsample\.", r"\1.downsampling_layer."),
    (r"(stages\.\d+)\.blocks\.", r"\1.layers."),
    (r"(layers\.\d+)\.conv_dw\.", r"\1.dwconv."),
    (r"(layers\.\d+)\.norm\.", r"\1.layernorm."),
    (r"(layers\.\d+)\.mlp\.fc", r"\1.pwconv"),
    (r"(layers\.\d+)\.gamma$", r"\1.layer_scale_parameter"),
    (r"^decoder_sd\.", ""),
    (r"^decoder_pd\.", "uns_"),
    (r"stage(16|8|4)\.attention\.", r"decoder\1.guide_layer."),
    (r"stage(16|8|4)\.up\.", r"decoder\1.decoder."),
    (r"(guide_layer\.(?:self|cross))_attention", r"\1_attn"),
    (r"^(uns_)?upsample\.", r"\1decoder1."),
)

# Tensors of theirs that our network does not use: description, and names.
IGNORED = {
    "final layer norm of the encoder": re.compile(r"^encoder\.model\.layernorm\."),
    "projection head of the encoder": re.compile(r"^encoder\.project_head\."),
    "text encoder": re.compile(r"^text_encoder\."),
    "position constants": re.compile(r"\.(vis|txt)_pos\.pe$"),
}

log = logging.getLogger(__name__)


def from_released(state_dict: Mapping[str, Tensor]) -> ProPL:
    """Build the network of the authors' code from its state dict.

    Images given to `encode` must already be normalised (the authors z-score each channel of each image). The network
    has no prompt bank: pass `text` (B, 24, 768), or call `attach_prompts(bank, padding="released")`, as the authors
    keep the embeddings at padding positions. As in their inference, `forward` uses decoder pd by default.

    Args:
        state_dict: names to tensors, of any float type, on any device; a "module." before every name
            (`DataParallel`) is removed. A file that wraps it, such as {"state_dict": ...}, is for the caller to unwrap.

    Returns:
        The network on the CPU, in eval mode. Its `released_report` is {"loaded": n, "ignored": {what: n}}, counts of
        their tensors.
    """
    # All or none: one such name among others is foreign, and is reported as one.
    wrapped = all(name.startswith("module.") for name in state_dict)
    given = {name.removeprefix("module.") if wrapped else name: value for name, value in state_dict.items()}
    network = ProPL(ENCODER, prompts=False, text_shape=TEXT_SHAPE)
    network.choose_decoder("pd")
    own = network.state_dict()
    ours = {released_name(name): name for name in own if name != "predictor"}
    ignored = {kind: sum(bool(pattern.search(name)) for name in given) for kind, pattern in IGNORED.items()}
    _check_names(given, ours)
    for name, tensor in given.items():
        if name in ours:
            own[ours[name]] = _fitting(name, tensor, own[ours[name]])
    network.load_state_dict(own)
    network.released_report = {"loaded": len(ours), "ignored": ignored}
    log.info("released weights: %d tensors loaded, ignored: %s", len(ours), ignored)
    return network.eval()


def released_name(name: str) -> str:
    """The authors' name of a tensor that our state dict calls `name`."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _check_names(given: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    facts = []
    ignored = {name for name in given if any(pattern.search(name) for pattern in IGNORED.values())}
    for verdict, names in (
        (
            "left over",
            [name for name in given if name not in ours and name not in ignored],
        ),
        ("missing", [name for name in ours if name not in given]),
    ):
        if names:
            dots = ", ..." if len(names) > LISTED else ""
            facts.append(f"{len(names)} names {verdict}: {', '.join(map(str, names[:LISTED]))}{dots}")
    if facts:
        cure = "give the state dict of the authors' model itself, unwrapped from any training checkpoint"
        raise ProPLError("released state dict", "; ".join(facts), cure)


def _fitting(name: str, tensor: Any, wanted: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise ProPLError(f"released tensor '{name}'", f"is a {type(tensor).__name__}", "give a state dict of tensors")
    if tensor.shape != wanted.shape and (tensor.numel(), wanted.dim()) != (1, 0):  # alpha: a number, or a list of one
        fact = f"has shape {tuple(tensor.shape)}, the network {tuple(wanted.shape)}"
        raise ProPLError(f"released tensor '{name}'", fact, "give the authors' ConvNeXt-Tiny model with (24, 768) text")
    return tensor.reshape(wanted.shape)
