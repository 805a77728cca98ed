"""Graphs written by hand: models as data, for tests that need no torch."""

from collections.abc import Sequence

from pipelab.graph import Block, Graph, ModuleCall, Op, TensorInfo, Weight


class GraphWriter:
    """Writes a graph op by op, in execution order."""

    def __init__(self, model: str, batch_size: int, inputs: tuple[TensorInfo, ...], prefix: str = "") -> None:
        self.model, self.batch_size, self.inputs, self.prefix = model, batch_size, inputs, prefix
        self.ops: list[Op] = []
        self.weights: dict[str, Weight] = {}
        self.modules: list[ModuleCall] = []
        self.blocks: list[Block] = []

    def weight(self, name: str, *shape: int, tied_to: str | None = None, kind: str = "parameter") -> str:
        """Declare a weight; returns its name."""
        count = 1
        for size in shape:
            count *= size
        self.weights[name] = Weight(name, shape, "float32", count, 4 * count, kind, True, tied_to or name)
        return name

    def op(self, target: str, module: str, shape: tuple[int, ...], args: tuple[int, ...], *weights: str,
           dtype: str = "float32", item_bytes: int = 4) -> int:  # fmt: skip
        """Append an op; returns its value number."""
        index = len(self.ops)
        num_bytes = item_bytes
        for size in shape:
            num_bytes *= size
        ordinal = sum(1 for op in self.ops if (op.module, op.target) == (module, f"aten.{target}.default"))
        name = f"{target}_{index}"
        output = TensorInfo(name, shape, dtype, num_bytes, batched=True)
        flops = 2 * num_bytes // item_bytes
        self.ops.append(Op(name, f"aten.{target}.default", module, 0, ordinal, args, weights, output, flops, index))
        return index

    def block(self, path: str, label: str, start: int) -> None:
        """Everything from `start` to here is one block."""
        self.blocks.append(Block(path, label, start, len(self.ops)))

    def module(self, path: str, class_name: str, start: int) -> None:
        """Everything from `start` to here was one call of a module."""
        self.modules.append(ModuleCall(path, 0, class_name, start, len(self.ops)))

    def graph(self, outputs: tuple[int, ...]) -> Graph:
        """The graph; every position between two ops is a legal cut."""
        modules = sorted(self.modules, key=lambda call: (call.start, -call.stop))
        return Graph(
            model=self.model,
            batch_size=self.batch_size,
            inputs=self.inputs,
            ops=tuple(self.ops),
            outputs=outputs,
            weights=tuple(self.weights.values()),
            modules=tuple(modules),
            blocks=tuple(self.blocks),
            prefix=self.prefix,
            legal=tuple(range(1, len(self.ops))),
        )


def gpt2_graph(
    num_blocks: int = 12, *, hidden: int = 768, vocab: int = 50257, batch: int = 8, length: int = 128,
    extra_ops: int = 0, model: str = "GPT2LMHeadModel",
) -> Graph:  # fmt: skip
    """A graph like GPT-2's: tied embedding and head, a mask every block reads, ten ops or more per block.

    Args:
        num_blocks: Number of blocks.
        hidden: Width.
        vocab: Rows of the embedding.
        batch: Batch size.
        length: Number of tokens.
        extra_ops: More ops per block without weights, to make the graph long.
        model: Name of the model.
    """
    ids = TensorInfo("input_ids", (batch, length), "int64", 8 * batch * length, batched=True)
    writer = GraphWriter(model, batch, (ids,), "transformer.")
    wte = writer.weight("transformer.wte.weight", vocab, hidden)
    writer.weight("lm_head.weight", vocab, hidden, tied_to="transformer.wte.weight")
    wpe = writer.weight("transformer.wpe.weight", 1024, hidden)
    wide = (batch, length, hidden)
    mask = writer.op("le", "transformer", (batch, 1, length, length), (-1,), dtype="bool", item_bytes=1)
    tokens = writer.op("embedding", "transformer.wte", wide, (-1,), wte)
    places = writer.op("embedding", "transformer.wpe", (1, length, hidden), (), wpe)
    state = writer.op("add", "transformer", wide, (tokens, places))
    writer.block("", "embed", 0)
    for index in range(num_blocks):
        state = _block(writer, f"transformer.h.{index}", state, mask, wide, extra_ops)
        writer.block(f"transformer.h.{index}", f"h.{index}", writer.modules[-1].start)
    start = len(writer.ops)
    state = _norm(writer, "transformer.ln_f", state, wide)
    logits = writer.op("linear", "lm_head", (batch, length, vocab), (state,), "lm_head.weight")
    writer.module("lm_head", "Linear", logits)
    writer.block("", "head", start)
    writer.module("", model, 0)
    return writer.graph((logits,))


def _norm(writer: GraphWriter, path: str, state: int, shape: tuple[int, ...]) -> int:
    names = [writer.weight(f"{path}.{kind}", shape[-1]) for kind in ("weight", "bias")]
    value = writer.op("layer_norm", path, shape, (state,), *names)
    writer.module(path, "LayerNorm", value)
    return value


def _linear(writer: GraphWriter, path: str, state: int, shape: tuple[int, ...], width: int) -> int:
    weight = writer.weight(f"{path}.weight", shape[-1], width)
    bias = writer.weight(f"{path}.bias", width)
    value = writer.op("addmm", path, (*shape[:-1], width), (state,), bias, weight)
    writer.module(path, "Conv1D", value)
    return value


def _block(writer: GraphWriter, path: str, state: int, mask: int, shape: tuple[int, ...], extra_ops: int) -> int:
    start, hidden = len(writer.ops), shape[-1]
    normed = _norm(writer, f"{path}.ln_1", state, shape)
    attention = len(writer.ops)
    qkv = _linear(writer, f"{path}.attn.c_attn", normed, shape, 3 * hidden)
    mixed = writer.op("scaled_dot_product_attention", f"{path}.attn", shape, (qkv, mask))
    mixed = _linear(writer, f"{path}.attn.c_proj", mixed, shape, hidden)
    writer.module(f"{path}.attn", "GPT2Attention", attention)
    state = writer.op("add", path, shape, (state, mixed))
    normed = _norm(writer, f"{path}.ln_2", state, shape)
    mlp = len(writer.ops)
    inner = _linear(writer, f"{path}.mlp.c_fc", normed, shape, 4 * hidden)
    for _ in range(1 + extra_ops):
        inner = writer.op("gelu", f"{path}.mlp.act", (*shape[:-1], 4 * hidden), (inner,))
    out = _linear(writer, f"{path}.mlp.c_proj", inner, (*shape[:-1], 4 * hidden), hidden)
    writer.module(f"{path}.mlp", "GPT2MLP", mlp)
    state = writer.op("add", path, shape, (state, out))
    writer.module(path, "GPT2Block", start)
    return state


def mlp_graph(num_layers: int = 8, width: int = 16, *, batch: int = 8, model: str = "MLP") -> Graph:
    """Equal linear layers in a row, each a block of one op."""
    writer = GraphWriter(model, batch, (TensorInfo("x", (batch, width), "float32", 4 * batch * width, batched=True),))
    value = -1
    for index in range(num_layers):
        value = _linear(writer, f"layers.{index}", value, (batch, width), width)
        writer.block(f"layers.{index}", f"layers.{index}", value)
    writer.module("", model, 0)
    return writer.graph((value,))


def chain_graph(*ops: Sequence[str], sizes: dict[str, int], kinds: dict[str, str] | None = None) -> Graph:
    """A chain of ops, each given by the names of the weights it reads."""
    writer = GraphWriter("Chain", 1, (TensorInfo("x", (1, 16), "float32", 64),))
    for name, size in sizes.items():
        writer.weight(name, size, kind=(kinds or {}).get(name, "parameter"))
    value = -1
    for names in ops:
        value = writer.op("op", "", (1, 16), (value,), *names)
    return writer.graph((value,))
