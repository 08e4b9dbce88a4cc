"""The ONNX form of weights that `Predictor` runs without torch: the operations alone, to be filled from the weights.

The exporter writes all tensors into its file. Those that the weights hold are known by their values, get the name that they
have there, and are taken out: 0.2 MB are left of EfficientNet-Lite1. Half precision stays where it is, in the weights, and
batch normalisation is folded when the graph is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from propl_monai.deploy.export import onnx_program
from propl_monai.deploy.exportable import ExportableNetwork
from propl_monai.deploy.parity import compare, parity_inputs, require_parity
from propl_monai.errors import ProPLError
from propl_monai.inference.engines.graph_file import FACTS, LARGEST, OUTPUTS, Graph, describe_graph, write_graph
from propl_monai.inference.engines.onnx_engine import OnnxEngine
from propl_monai.model.bundle_folder import Described
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network

LEAST = 64  # bytes of a tensor that is taken out
FOLDED = 16  # numbers: the shapes of tensors, not tensors


class PairedNetwork(ExportableNetwork):
    """The network for pairs of picture and text: each picture is encoded once, for all of its tasks.

    Args: those of `ExportableNetwork`.
    """

    def forward(self, image: Tensor, row: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Normalised images (B, 1, H, W), row of the image of each pair (R,) and texts (R, L, E).

        Returns:
            Logits (R, 1, H, W), and pooled features (B, C).
        """
        features = self.encode(image)
        logits = self.decode(features.changed(lambda maps: torch.index_select(maps, 0, row)), text)
        return logits, features.pooled()


def make_graph(described: Described) -> Path:
    """Write the ONNX form of weights beside them, or to the user's cache; it is compared with the network first.

    Returns:
        The file.
    """
    content = graph_of(described)
    return write_graph(described.weights, described.weights_sha256, content)


def graph_of(described: Described) -> bytes:
    """The content of the file, see `make_graph`."""
    network, _ = load_network(described.weights)
    if not isinstance(network, ProPL):
        fact = f"network '{network.name}' has none, as it is made for propl alone"
        raise ProPLError(f"ONNX form of {described.weights}", fact, "give --engine torch")
    decoder = network.chosen_decoder
    paired = PairedNetwork(network, decoder)
    example = torch.zeros(2, 1, *described.spatial_size), torch.tensor([0, 0, 1]), paired.texts[[0, 0, 0]]
    free = {"image": {0: "batch"}, "row": {0: "pairs"}, "text": {0: torch.export.Dim.DYNAMIC}}
    program = onnx_program(paired, example, free, network.encoder.name, OUTPUTS, optimize=False)
    model = _simplified(program).model_proto
    tensors = _emptied(model, described.weights)
    body = model.SerializeToString()
    facts = describe_graph(body, described.weights_sha256, decoder, tensors)
    end = type(model)()
    end.metadata_props.add(key=FACTS, value=facts)
    content: bytes = body + end.SerializeToString()  # protobuf reads messages in a row as one
    if len(content) > LARGEST:
        fact = f"would have {len(content)} bytes, as many of its tensors are not in the weights"
        raise ProPLError(f"ONNX form of {described.weights}", fact, "give --engine torch")
    require_equal(described, network, Graph(described.weights, content, decoder, tensors))
    return content


def _simplified(program: Any) -> Any:
    """Fold arithmetic of shapes and what is there twice: a third less to load.

    Tensors stay as the weights hold them; ONNX Runtime folds the rest.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    model = program.model
    optimizer.inline(model)
    optimizer.fold_constants(model, onnx_shape_inference=True, input_size_limit=FOLDED, output_size_limit=FOLDED)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    optimizer.remove_unused_nodes(model)
    return program


def _emptied(model: Any, weights: Path) -> list[str]:
    """Take out of a graph what the weights hold, in place; the names of these tensors, which the graph uses from now on.

    The exporter stores the matrices of linear layers transposed: they become a node that transposes, once, at loading.
    """
    from onnx import TensorProto, helper, numpy_helper

    held = {_value(value.astype(np.float32)): name for name, value in load_file(weights).items()}
    renamed: dict[str, str] = {}
    empty: dict[str, Any] = {}
    turned, kept = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        sought = array.dtype == np.float32 and array.nbytes >= LEAST
        name = held.get(_value(array)) if sought else None
        name_of_turned = held.get(_value(array.T)) if sought and name is None and array.ndim == 2 else None
        found = name or name_of_turned
        if found is None:
            kept.append(tensor)
            continue
        if name is not None:
            renamed[tensor.name] = name
        else:
            turned.append(helper.make_node("Transpose", [found], [tensor.name], perm=[1, 0]))
        dims = array.shape if name is not None else array.T.shape
        empty[found] = TensorProto(name=found, dims=dims, data_type=tensor.data_type)  # equal values become one
        empty[found].data_location = TensorProto.EXTERNAL
        empty[found].external_data.add(key="location", value=weights.name)
    nodes = [*turned, *model.graph.node]
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.ClearField("doc_string")
        node.ClearField("metadata_props")  # lines of code of the exporter's machine
    for field, values in (("initializer", [*kept, *empty.values()]), ("node", nodes), ("value_info", [])):
        values = [type(one).FromString(one.SerializeToString()) for one in values]  # copies, as the field is emptied
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
    model.graph.ClearField("metadata_props")
    return sorted(empty)


def _value(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def require_equal(described: Described, network: ProPL, graph: Graph) -> None:
    """Refuse a graph that differs from its network on noise over smooth shades, see `parity.parity_inputs`.

    Args:
        described: the weights, which fill the graph.
        network: of these weights.
        graph: that is tried, with pictures of the network's size.
    """
    engine = OnnxEngine(described, graph, tta=False)
    tasks = len(described.header["architecture"]["tasks"])

    def run(image: Tensor, task: Tensor) -> Tensor:
        return torch.from_numpy(engine.run(image.numpy(), np.arange(len(image)), task.numpy())[0])

    inputs = parity_inputs(tasks, described.spatial_size, described.normalisation)
    fitting = (pair for pair in inputs if pair[0].shape[2:] == described.spatial_size)
    require_parity(Path(f"ONNX form of {described.weights}"), compare(network, run, fitting))
