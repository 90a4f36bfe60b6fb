"""The same steps in ONNX Runtime, with weights of eight bits: one call a step instead of two hundred.

Optional (`pip install midiex[fast]`). The graph is built here from the network's weights, so that whatever was trained
or fine-tuned runs in it, and nothing has to be exported. Each matrix is kept as int8 with a scale a column; what it is
multiplied with is made uint8 on the way (ONNX Runtime's DynamicQuantizeMatMul). Attention stays in float32.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import MissingPart
from .prepared import once_a_version
from .stepper import Angles, Memory, Stepper, numbers, room

if TYPE_CHECKING:
    from .decoding import Task
    from .model import ChunkTransformer

CONTRIB = "com.microsoft"  # operators of ONNX Runtime's own
_log = logging.getLogger(__name__)


@functools.cache
def is_installed() -> bool:
    """Are the packages of the extra `fast` there, and do they work?"""
    try:
        import onnx
        import onnxruntime
    except Exception as error:  # such as a library that was built for another machine
        _log.debug("ONNX Runtime cannot be used: %s", error)
        return False
    return bool(onnx.__version__ and onnxruntime.__version__)


class OnnxStepper(Stepper):
    """The layers in ONNX Runtime. Each layer's keys and values (K, H, longest, E) lie in one buffer for the whole
    chunk, to which a step adds its own."""

    def __init__(
        self,
        model: ChunkTransformer,
        memory: Memory,
        task: Task,
        candidates: int,
        longest: int,
        int8: bool = True,
    ):
        super().__init__(model, task, candidates)
        size = model.size
        self.session = session_of(model, int8)
        self.binding, self.bound = self.session.io_binding(), list[Any]()
        self.states = np.empty((candidates, 1, model.heads.state.out_features), np.float32)
        self._bind(self.binding.bind_ortvalue_output, "states", self.states)
        shape = (candidates, size.n_heads, longest + 2, size.head_dim)
        for layer, (keys, values) in enumerate(memory):
            self._bind(self.binding.bind_ortvalue_input, f"memory_keys{layer}", numbers(keys)[0].swapaxes(1, 2))
            self._bind(self.binding.bind_ortvalue_input, f"memory_values{layer}", numbers(values)[0])
            for name in ("keys", "values"):
                buffer = room(shape)  # read only where a step has written
                self._bind(self.binding.bind_ortvalue_input, f"{name}{layer}", buffer)
                self._bind(self.binding.bind_ortvalue_output, f"new_{name}{layer}", buffer)
        angles = [f"{name}_{part}" for name in Angles._fields for part in ("cos", "sin")]
        given: dict[str, tuple[int, ...]] = {
            "x": (candidates, 1, size.d_model),
            "heard": (candidates, 1, model.echoes.out.in_features),
        }
        given |= dict.fromkeys(angles, (candidates, model.rotary.pairs))
        self.given: dict[str, np.ndarray] = {name: np.zeros(size, np.float32) for name, size in given.items()}
        self.given |= {"before": np.zeros(candidates, np.int32), "with_this": np.zeros(1, np.int32)}
        self.given["each"] = np.arange(candidates)[:, None]
        for name, array in self.given.items():
            self._bind(self.binding.bind_ortvalue_input, name, array)

    def _bind(self, bind: Callable[[str, Any], None], name: str, values: np.ndarray) -> None:
        """Lets the graph work in an array's own memory, which must be whole, and stay."""
        import onnxruntime

        self.bound.append(onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values)))
        bind(name, self.bound[-1])

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        given = self.given
        given["x"][:, 0], given["heard"][:, 0] = x, heard
        for name, (cos, sin) in zip(Angles._fields, angles, strict=True):
            given[f"{name}_cos"][:], given[f"{name}_sin"][:] = cos, sin
        given["before"][:], given["with_this"][:] = self.at, self.at + 1
        self.session.run_with_iobinding(self.binding)
        return self.states[:, 0].copy()


@once_a_version
def session_of(model: ChunkTransformer, int8: bool = True) -> Any:
    """The network's decoder as a session of ONNX Runtime."""
    if not is_installed():
        raise MissingPart("ONNX Runtime is not installed; run `pip install midiex[fast]`, or set engine to torch.")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # so small that a second one only waits
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_Graph(model, int8).serialized(), options, providers=["CPUExecutionProvider"])


class Stream(NamedTuple):
    """Names of two nodes whose sum is the stream."""

    before: str
    branch: str


class _Graph:
    """The decoder's layers and the heads' states as an ONNX graph, for any number of candidates."""

    def __init__(self, model: ChunkTransformer, int8: bool):
        from onnx import TensorProto, helper, numpy_helper

        self.helper, self.to_tensor = helper, numpy_helper.from_array
        self.types = {"float": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
        self.model, self.int8 = model, int8
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def serialized(self) -> bytes:
        model, size = self.model, self.model.size
        self.constant("rows", np.array([-1, 1, size.d_model]))
        self.constant("heads", np.array([-1, size.n_heads, size.head_dim]))
        self.constant("thirds", np.full(3, size.d_model))
        self.constant("halves", np.full(2, size.d_ff))
        self.input("x", "K", 1, size.d_model)
        self.input("heard", "K", 1, model.echoes.out.in_features)
        for name in Angles._fields:
            self.input(f"{name}_cos", "K", model.rotary.pairs)
            self.input(f"{name}_sin", "K", model.rotary.pairs)
        self.input("each", "K", 1, kind="int64")
        self.input("before", "K", kind="int32")
        self.input("with_this", 1, kind="int32")
        x = Stream("x", self.times("heard", model.echoes.out))
        for number, layer in enumerate(model.decoder_layers):
            x = self.self_attention(x, layer.attention, number)
            x = self.cross_attention(x, layer.cross, number)
            x = self.feed_forward(x, layer.feed_forward)
        entered, _ = self.enter(x, model.heads.norm)
        self.times(entered, model.heads.state, to=("states",))
        self.output("states", "K", 1, model.heads.state.out_features)
        helper = self.helper
        graph = helper.make_graph(self.nodes, "step", self.inputs, self.outputs, list(self.constants.values()))
        versions = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
        return bytes(helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString())

    # ---- layers, of a stream (K, 1, D) -------------------------------------------------------------------------------

    def self_attention(self, x: Stream, layer: Any, number: int) -> Stream:
        size = self.model.size
        for name in ("keys", "values"):
            self.input(f"{name}{number}", "K", size.n_heads, "T", size.head_dim)
            self.output(f"new_{name}{number}", "K", size.n_heads, "T", size.head_dim)
        entered, before = self.enter(x, layer.norm)
        q, k, v = self.split(self.times(entered, layer.qkv), "thirds", 3)
        given = (self.rotate(q, "query"), self.rotate(k, "key"), v, f"keys{number}", f"values{number}")
        to = (f"attended{number}", f"new_keys{number}", f"new_values{number}")
        heads = size.n_heads
        self.op("GroupQueryAttention", *given, "before", "with_this", to=to, domain=CONTRIB,
                num_heads=heads, kv_num_heads=heads)  # fmt: skip
        return self.left(before, to[0], layer)

    def cross_attention(self, x: Stream, layer: Any, number: int) -> Stream:
        """The candidates' queries as one sequence, since the memory is the same for all."""
        size = self.model.size
        keys, values = f"memory_keys{number}", f"memory_values{number}"
        self.input(keys, size.n_heads, size.head_dim, "M")
        self.input(values, size.n_heads, "M", size.head_dim)
        scale = size.head_dim**-0.5
        entered, before = self.enter(x, layer.norm)
        q = self.rotate(self.times(entered, layer.q, scale), "cross")
        q = self.op("Transpose", self.op("Reshape", q, "heads"), perm=[1, 0, 2])  # (H, K, E)
        y = self.op("MatMul", self.op("Softmax", self.op("MatMul", q, keys), axis=-1), values)
        return self.left(before, self.op("Reshape", self.op("Transpose", y, perm=[1, 0, 2]), "rows"), layer)

    def feed_forward(self, x: Stream, layer: Any) -> Stream:
        entered, before = self.enter(x, layer.norm)
        gate, value = self.split(self.times(entered, layer.inner), "halves", 2)
        silu = self.op("QuickGelu", gate, domain=CONTRIB, alpha=1.0)
        return self.left(before, self.op("Mul", silu, value), layer)

    def enter(self, x: Stream, norm: Any) -> tuple[str, str]:
        """The stream as a branch sees it, normed, and as it is: the sum is made on the way."""
        gain = self.constant(f"gain{len(self.constants)}", numbers(norm.weight))
        to = tuple(f"node{len(self.nodes)}_{part}" for part in ("normed", "sum"))
        self.op("SkipSimplifiedLayerNormalization", *x, gain, to=(to[0], "", "", to[1]), domain=CONTRIB,
                epsilon=norm.eps)  # fmt: skip
        return to[0], to[1]

    def left(self, x: str, y: str, layer: Any) -> Stream:
        """The stream and a branch that is to be added to it."""
        return Stream(x, self.norm(self.times(y, layer.out), layer.out_norm))

    def rotate(self, x: str, angles: str) -> str:
        size, given = self.model.size, ("each", f"{angles}_cos", f"{angles}_sin")
        turned = 2 * self.model.rotary.pairs
        return self.op("RotaryEmbedding", x, *given, domain=CONTRIB,
                       num_heads=size.n_heads, rotary_embedding_dim=turned)  # fmt: skip

    def norm(self, x: str, norm: Any) -> str:
        gain = self.constant(f"gain{len(self.constants)}", numbers(norm.weight))
        return self.op("SimplifiedLayerNormalization", x, gain, axis=-1, epsilon=norm.eps)

    def times(self, x: str, matrix: Any, factor: float = 1.0, to: tuple[str, ...] = ()) -> str:
        weight, name = factor * numbers(matrix.weight).T, f"weight{len(self.constants)}"  # (inputs, outputs)
        if not self.int8:
            return self.op("MatMul", x, self.constant(name, weight), to=to)
        scale = np.maximum(np.abs(weight).max(0), 1e-12) / 127
        self.constant(name, np.rint(weight / scale).astype(np.int8))
        self.constant(f"{name}_scale", scale.astype(np.float32))
        self.constant(f"{name}_zero", np.zeros(len(scale), np.int8))
        given = (name, f"{name}_scale", f"{name}_zero")
        return self.op("DynamicQuantizeMatMul", x, *given, to=to, domain=CONTRIB)

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def op(self, kind: str, *given: str, to: tuple[str, ...] = (), domain: str = "", **settings: Any) -> str:
        to = to or (f"node{len(self.nodes)}",)
        self.nodes.append(self.helper.make_node(kind, given, to, domain=domain, **settings))
        return to[0]

    def split(self, x: str, sizes: str, parts: int) -> tuple[str, ...]:
        to = tuple(f"node{len(self.nodes)}_{part}" for part in range(parts))
        self.op("Split", x, sizes, to=to, axis=-1)
        return to

    def constant(self, name: str, value: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = self.to_tensor(np.ascontiguousarray(value), name)
        return name

    def input(self, name: str, *shape: int | str, kind: str = "float") -> None:
        self.inputs.append(self.helper.make_tensor_value_info(name, self.types[kind], shape))

    def output(self, name: str, *shape: int | str) -> None:
        self.outputs.append(self.helper.make_tensor_value_info(name, self.types["float"], shape))
