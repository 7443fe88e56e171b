"""BERT as an ONNX graph, written node by node from weights in memory: nothing is traced, exported or stored.

    ids (T,) -> embeddings (T, dim) -> [gather to (n, L, dim) -> attention -> gather back, feed-forward] x layers
                                       `----------- rows, lengths ------------ tokens ---'

As in `packed_bert`, whose weights it takes, all sequences lie in one row without padding; only attention, the step in
which tokens meet, sees them padded to the longest, with the lengths as its mask. The graph is a few kilobytes: weights
stay where they are and are handed to the session by name.

Operators are ONNX's own (opset 20), and of ONNX Runtime's `MultiHeadAttention` and, for 8-bit products,
`DynamicQuantizeMatMul`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from flowdex_executors.encoder.packed_bert import BertWeights, Layer, Linear

__all__ = ["bert_graph"]

_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # that of opset 20; what the onnx package would write may be too new for the runtime
_RUNTIME = "com.microsoft"
_SMALL = 64  # bytes; shapes are part of the graph, since the runtime reads them while it optimises
# Weights get 7 bits: sums of two 8-bit products overflow the 16 bits of the instruction that AVX2 has for them.
_LARGEST_WEIGHT = 63


def bert_graph(model: BertWeights, *, int8: bool = False) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    """Write the graph.

    Its inputs are int64 `ids`, `positions`, `types` and `tokens` of shape (T,) and `rows` (n, L), and int32 `lengths`
    (n,): token t of sequence s is in the packed row at `rows[s, t]`, and `tokens` are its places in the flattened
    `rows`. `types` is there only where the model tells the two texts of a pair apart. The outputs are `layer_0` to
    `layer_N`, float32 of shape (T, dim).

    Args:
        model: The weights, on the CPU.
        int8: Whether matrix products are computed in 8 bits, with a scale for each column of a weight and one for the
            input: faster and inexact.

    Returns:
        The serialised model, and its weights by name.

    Raises:
        ConfigurationError: The package onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "the package onnx is not installed: run pip install 'flowdex[onnx]', or choose another backend"
        ) from None
    return _Writer(model, int8).write()


class _Writer:
    """The graph as it grows; methods that add nodes return the name of their result."""

    def __init__(self, model: BertWeights, int8: bool) -> None:
        self._model = model
        self._int8 = int8
        self._nodes: list[Any] = []
        self._tensors: dict[str, npt.NDArray[Any]] = {}

    def write(self) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
        from onnx import TensorProto, helper

        model = self._model
        size = model.words.shape[1]
        self._tensor("flat", np.array([-1, size], dtype=np.int64))
        hidden = self._embed()
        for number, layer in enumerate(model.layers, start=1):
            hidden = self._layer(hidden, f"layer_{number}", layer)
        names = ["ids", "positions", "tokens", *(["types"] if model.second_type is not None else [])]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["T"]) for name in names]
        inputs.append(helper.make_tensor_value_info("rows", TensorProto.INT64, ["n", "L"]))
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["n"]))
        outputs = [
            helper.make_tensor_value_info(f"layer_{number}", TensorProto.FLOAT, ["T", size])
            for number in range(len(model.layers) + 1)
        ]
        initializers = [_initializer(name, array) for name, array in self._tensors.items()]
        graph = helper.make_graph(self._nodes, "bert", inputs, outputs, initializers)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_RUNTIME, 1)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        weights = {name: array for name, array in self._tensors.items() if not _is_small(array)}
        return proto.SerializeToString(), weights

    # ---- parts of the model ----

    def _embed(self) -> str:
        model = self._model
        words = self._node("Gather", "words_of", self._tensor("words", model.words), "ids")
        positions = self._node("Gather", "positions_of", self._tensor("places", model.positions), "positions")
        total = self._node("Add", "embedded", words, positions)
        if model.second_type is not None:
            both = np.stack([np.zeros_like(model.second_type.numpy()), model.second_type.numpy()])
            types = self._node("Gather", "types_of", self._tensor("kinds", both), "types")
            total = self._node("Add", "embedded_types", total, types)
        return self._norm(total, "layer_0", model.embedding_norm)

    def _layer(self, hidden: str, name: str, layer: Layer) -> str:
        attended = self._linear(
            self._attend(hidden, f"{name}_attention", layer.qkv), f"{name}_mixed", layer.attention_output
        )
        middle = self._norm(
            self._node("Add", f"{name}_middle_sum", attended, hidden), f"{name}_middle", layer.attention_norm
        )
        inner = self._activate(self._linear(middle, f"{name}_inner", layer.inner), f"{name}_active")
        output = self._linear(inner, f"{name}_output", layer.output)
        return self._norm(self._node("Add", f"{name}_sum", output, middle), name, layer.output_norm)

    def _attend(self, hidden: str, name: str, qkv: Linear) -> str:
        """Self-attention of each sequence on itself: (T, dim) -> (T, dim)."""
        padded = self._node("Gather", f"{name}_padded", self._linear(hidden, f"{name}_qkv", qkv), "rows")
        parts = [f"{name}_{part}" for part in ("query", "key", "value")]
        self._add("Split", [padded], parts, axis=-1, num_outputs=3)
        self._add(
            "MultiHeadAttention",
            [*parts, "", "lengths"],
            [f"{name}_heads"],
            domain=_RUNTIME,
            num_heads=self._model.heads,
        )
        return self._node("Gather", name, self._node("Reshape", f"{name}_flat", f"{name}_heads", "flat"), "tokens")

    def _linear(self, values: str, name: str, linear: Linear) -> str:
        bias = self._tensor(f"{name}.bias", linear.bias)
        if not self._int8:
            weight = self._tensor(f"{name}.weight", linear.weight)
            return self._node("Gemm", name, values, weight, bias, transB=1)
        weight8, scale = _quantise(linear.weight.numpy().T)
        tensors = [self._tensor(f"{name}.weight", weight8), self._tensor(f"{name}.scale", scale), "", bias]
        self._add("DynamicQuantizeMatMul", [values, *tensors], [name], domain=_RUNTIME)
        return name

    def _norm(self, values: str, name: str, norm: Linear) -> str:
        scale, shift = self._tensor(f"{name}.scale", norm.weight), self._tensor(f"{name}.shift", norm.bias)
        return self._node("LayerNormalization", name, values, scale, shift, axis=-1, epsilon=self._model.epsilon)

    def _activate(self, values: str, name: str) -> str:
        if self._model.activation == "relu":
            return self._node("Relu", name, values)
        return self._node("Gelu", name, values, approximate=self._model.activation)

    # ---- parts of a graph ----

    def _tensor(self, name: str, value: Any) -> str:
        self._tensors[name] = np.ascontiguousarray(value if isinstance(value, np.ndarray) else value.numpy())
        return name

    def _node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        self._add(operator, list(inputs), [name], **attributes)
        return name

    def _add(
        self, operator: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))


def _quantise(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight of shape (in, out) as integers and the scale of each column."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / _LARGEST_WEIGHT, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def _is_small(array: npt.NDArray[Any]) -> bool:
    return array.nbytes <= _SMALL


def _initializer(name: str, array: npt.NDArray[Any]) -> Any:
    """A tensor of the graph: with its content if it is small, else with a promise of it."""
    from onnx import TensorProto, helper, numpy_helper

    if _is_small(array):
        return numpy_helper.from_array(array, name)
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="memory")
    return tensor
