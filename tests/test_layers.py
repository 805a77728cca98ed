"""The layers: what each module may import, and what `import pipelab` must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipelab"

# Every module under pipelab/ lies in one layer; a package's modules share its layer.
LAYER = {
    **dict.fromkeys(
        ("errors", "arguments", "files", "names", "units", "table", "elements", "graph", "graph_checks", "split_points",
         "hardware", "presets", "costs", "plan", "plan_parts", "exports", "events", "chrome_trace", "load",
         "report", "report_words", "generation_report"),
        "data",
    ),
    **dict.fromkeys(("greedy", "policies", "schedules", "clocks", "replay", "simulator", "peers",
                     "partitions", "device_maps", "serving", "comparison", "contenders", "comparing"), "decide"),
    **dict.fromkeys(
        ("candidates", "certificates", "chain", "frontiers", "landscapes", "minmax", "mixtures", "planner",
         "polishing", "problem", "refusals", "windows"),
        "decide",
    ),
    **dict.fromkeys(
        ("aliasing", "blocks", "capture", "checkpoint_folder", "configs", "decoding", "example_inputs", "flops",
         "growing_cache", "marks", "operators",
         "piece_names", "pieces", "pretrained", "program", "progress", "recomputed", "recording", "sizes",
         "stage_module", "stages", "stand_in", "tensor_files", "token_steps", "tracing", "writes"),
        "trace",
    ),
    "launch": "launch",
    "viz": "viz",
    **dict.fromkeys(("lab", "shell", "__init__", "__main__"), "lab"),
}  # fmt: skip

# Layers and third-party packages each layer may import, besides the standard library.
ALLOWED = {
    "data": {"data", "numpy"},
    "decide": {"data", "decide", "numpy"},
    "trace": {"data", "trace", "numpy", "torch", "transformers", "huggingface_hub"},
    "launch": {"data", "decide", "trace", "launch", "numpy", "torch"},
    "viz": {"data", "decide", "viz", "numpy", "matplotlib", "graphviz", "ipywidgets", "anywidget", "traitlets",
            "IPython"},
    "lab": {"data", "decide", "trace", "launch", "viz", "lab", "numpy", "torch", "transformers", "ipywidgets",
            "IPython"},
}  # fmt: skip

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> str | None:
    """The layer or third-party package an import belongs to; None for what anybody may import."""
    top, *rest = name.split(".")
    if top == "pipelab":  # alone it loads nothing
        return LAYER.get(rest[0], "lab") if rest else None
    return None if top in sys.stdlib_module_names else top


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_what_its_layer_may(module: Path) -> None:
    top = module.parts[0]
    assert top in LAYER, f"pipelab/{module}.py has no layer: add it to LAYER"
    used = {(name, layer_of(name)) for name in imports_of((PACKAGE / module).with_suffix(".py"))}
    forbidden = {name for name, layer in used if layer and layer not in ALLOWED[LAYER[top]]}
    assert not forbidden, f"pipelab/{module}.py is in layer {LAYER[top]!r} and may not import {sorted(forbidden)}"


@pytest.mark.parametrize(
    ("statement", "unloaded"),
    [
        ("import pipelab", "torch transformers matplotlib ipywidgets anywidget graphviz IPython pipelab.launch"),
        ("import pipelab; pipelab.equal_size", "torch matplotlib ipywidgets anywidget graphviz"),
        ("import pipelab; pipelab.start", "torch.distributed.pipelining matplotlib ipywidgets transformers"),
        ("import pipelab; pipelab.viz.stage_graph", "torch ipywidgets anywidget pipelab.launch"),
    ],
)
def test_libraries_load_on_use(statement: str, unloaded: str) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {unloaded.split()} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
