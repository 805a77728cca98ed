"""From the names in a checkpoint to those in the model: as transformers itself renames and converts on loading.

Its conversions (experts merged into one tensor, a projection cut in three) are run here on tensors without data, and
written down as tables, which a rank runs on what it has read. Only then do names and shapes show what is wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pipelab.errors import LaunchError
from pipelab.operators import target_name
from pipelab.pieces import Piece
from pipelab.program import DeviceHere, Ref, Row, Table
from pipelab.tensor_files import FileTensor


def pieces_of(model: nn.Module, files: Mapping[str, FileTensor]) -> dict[str, Piece]:
    """Each tensor of the model's `state_dict` that the files hold.

    Args:
        model: Of transformers, on the meta device.
        files: The tensors by their names there.

    Raises:
        LaunchError: One has another shape than the model's, or a conversion cannot be followed.
    """
    targets = model.state_dict()
    pieces: dict[str, Piece] = {}
    for name, converter, sources in _assigned(model, targets, files):
        if converter is None:
            [(_, source)] = sources
            pieces.setdefault(name, Piece(_dtype(targets[name]), source.shape, (source,)))
            _check_shape(name, targets[name], source.shape, (source,))
        else:
            pieces.update(_converted(model, targets, name, converter, sources))
    return pieces


def _assigned(
    model: Any, targets: dict[str, Tensor], files: Mapping[str, FileTensor]
) -> Iterator[tuple[str, Any, Sequence[tuple[str, FileTensor]]]]:
    """Which tensors each weight is made of, and by which conversion; None for the tensor itself."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    converted: dict[str, tuple[Any, list[tuple[str, FileTensor]]]] = {}
    for name in sorted(files, key=dot_natural_key):
        found, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, targets)
        if found not in targets and name in targets:
            found, pattern = name, None
        if found not in targets:
            continue  # of a head or layer that this model has not
        if pattern is None:
            yield found, None, [("", files[name])]
        else:
            converted.setdefault(found, (by_pattern[pattern], []))[1].append((pattern, files[name]))
    for found, (converter, sources) in converted.items():
        yield found, converter, sources


def _converted(
    model: Any, targets: Mapping[str, Tensor], name: str, converter: Any, sources: Sequence[tuple[str, FileTensor]]
) -> Iterator[tuple[str, Piece]]:
    """What a conversion makes: each weight with its own table."""
    made: list[str] = []

    def convert(*tensors: Tensor) -> list[Tensor]:
        own = deepcopy(converter)
        for (pattern, source), tensor in zip(sources, tensors, strict=True):
            own.add_tensor(name, source.name, pattern, tensor)
        results = own.convert(name, model=model, config=model.config)
        made.extend(results)
        return [result[0] if isinstance(result, list) else result for result in results.values()]

    inputs = [torch.empty(source.shape, dtype=targets[name].dtype, device="meta") for _, source in sources]
    files = tuple(source for _, source in sources)
    try:
        graph = make_fx(convert)(*inputs).graph
    except Exception as error:  # whatever tensors of other shapes, or too few of them, make a conversion raise
        raise LaunchError(
            f"{files[0].path}: weight {name!r} cannot be made of tensor {files[0].name!r} and {len(files) - 1} others "
            f"({str(error).splitlines()[0]}). Save the checkpoint again, or load it with from_pretrained and pass the "
            "model to pipelab.trace."
        ) from error
    output = next(iter(reversed(graph.nodes)))
    for target, node in zip(made, output.args[0], strict=True):
        if target in targets:
            _check_shape(target, targets[target], tuple(node.meta["val"].shape), files)
            yield target, _piece(targets[target], graph, node, files)


def _piece(weight: Tensor, graph: fx.Graph, wanted: fx.Node, files: Sequence[FileTensor]) -> Piece:
    """The part of a conversion that one weight needs."""
    needed = {wanted}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    read = [(node, file) for node, file in zip(inputs, files, strict=True) if node in needed]
    rows = [
        Row(node.name, target_name(node), "", _argument(node.args), _argument(node.kwargs))
        for node in graph.nodes
        if node in needed and node.op == "call_function"
    ]
    table = Table(tuple(node.name for node, _ in read), tuple(rows), (wanted.name,))
    return Piece(_dtype(weight), tuple(weight.shape), tuple(file for _, file in read), table)


def _argument(argument: Any) -> Any:
    if isinstance(argument, fx.Node):
        return Ref(argument.name)
    if isinstance(argument, torch.device):
        return DeviceHere()
    if isinstance(argument, list | tuple):
        items = [_argument(item) for item in argument]
        return items if isinstance(argument, list) else tuple(items)
    if isinstance(argument, dict):
        return {name: _argument(item) for name, item in argument.items()}
    return argument


def _check_shape(name: str, weight: Tensor, shape: tuple[int, ...], files: Sequence[FileTensor]) -> None:
    if shape != tuple(weight.shape):
        what = "is" if len(files) == 1 else f"and {len(files) - 1} others make"
        raise files[0].wrong(
            f"{what} {shape}; weight {name!r} of the model is {tuple(weight.shape)}. Is config.json of this checkpoint?"
        )
    if weight.is_floating_point() != files[0].torch_dtype.is_floating_point:
        raise files[0].wrong(
            f"is {files[0].dtype}; weight {name!r} of the model is {_dtype(weight)}. Quantized checkpoints cannot be "
            "read: use one that is not."
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def folder_of(source: str) -> Path:
    """The folder of a checkpoint; that of a model id is downloaded, if it is not yet.

    Raises:
        LaunchError: It cannot be had.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        for kind in ("model*.safetensors", "pytorch_model*.bin"):
            folder = Path(snapshot_download(source, allow_patterns=[kind, f"{kind}.index.json"]))
            if any(folder.glob(kind)):
                return folder
    except (OSError, ValueError) as error:
        raise LaunchError(f"The weights of {source!r} cannot be had: {str(error).splitlines()[0]}") from error
    raise LaunchError(f"{source!r} has no weights in safetensors or pytorch_model.bin.")
