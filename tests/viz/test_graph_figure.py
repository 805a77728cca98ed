"""The stage graph: what it shows, as DOT and as SVG of our own."""

import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import GraphWriter, gpt2_graph, mlp_graph

from pipelab.errors import PipelabError
from pipelab.graph import Graph, TensorInfo
from pipelab.plan import Plan
from pipelab.policies import equal_size, split_at, uniform
from pipelab.viz import stage_graph
from pipelab.viz.picture import Link, block_picture, stage_picture
from pipelab.viz.svg_layout import draw

GPT2 = gpt2_graph(12, hidden=64, vocab=100, batch=2, length=8)


def skip_graph() -> Graph:
    """Four layers; the last also reads what the first made, and a second input."""
    x, late = (TensorInfo(name, (2, 4), "float32", 32) for name in ("x", "late"))
    writer = GraphWriter("Skip", 2, (x, late))
    first = writer.op("linear", "a", (2, 4), (-1,), writer.weight("a.weight", 4, 4))
    second = writer.op("linear", "b", (2, 4), (first,), writer.weight("b.weight", 4, 4))
    third = writer.op("add", "c", (2, 4), (second,))
    last = writer.op("mul", "d", (2, 4), (third, first, -2))
    for index, name in enumerate("abcd"):
        writer.block(name, name, index)
        writer.blocks[-1] = replace(writer.blocks[-1], stop=index + 1)
    return writer.graph((last,))


def links(picture_links: tuple[Link, ...], kind: str) -> list[tuple[int, int, str]]:
    return [(link.source, link.target, link.label) for link in picture_links if link.kind == kind]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_one_box_per_stage_says_what_it_holds() -> None:
    picture = stage_picture(uniform(GPT2, num_stages=4))
    assert [box.lines[:2] for box in picture.boxes] == [
        ("stage 0", "embed, h.0–2"),
        ("stage 1", "h.3–5"),
        ("stage 2", "h.6–8"),
        ("stage 3", "h.9–11, head"),
    ]
    assert picture.boxes[1].lines[2:] == ("150 k parameters", "600 kB")


def test_arrows_carry_the_bytes_of_their_boundary() -> None:
    plan = uniform(GPT2, num_stages=4)
    # hidden 2 x 8 x 64 floats and the mask of 2 x 8 x 8 bytes
    assert {boundary.num_bytes for boundary in plan.boundaries} == {4096 + 128}
    assert links(stage_picture(plan).links, "boundary") == [(k, k + 1, "4.22 kB") for k in range(3)]


def test_a_tied_weight_is_an_arc_between_the_stages_that_hold_it() -> None:
    assert links(stage_picture(uniform(GPT2, num_stages=4)).links, "tied") == [
        (0, 3, "tied: wte = lm_head, 25.6 kB in both")
    ]


def test_a_long_path_keeps_its_number() -> None:
    graph = mlp_graph(4)
    blocks = tuple(replace(block, label=f"the_long_name_of_a_module_list.{i}") for i, block in enumerate(graph.blocks))
    boxes = stage_picture(uniform(replace(graph, blocks=blocks), num_stages=2)).boxes
    assert [box.lines[1] for box in boxes] == ["…g_name_of_a_module_list.0–1", "…g_name_of_a_module_list.2–3"]


def test_a_value_that_passes_a_stage_is_an_arc_past_it() -> None:
    plan = split_at(skip_graph(), [1, 2, 3])
    assert links(stage_picture(plan).links, "skip") == [(1, 3, "a: linear_0, 32 B"), (-1, 3, "late, 32 B")]


def test_nothing_passes_an_empty_last_stage_by() -> None:
    picture = stage_picture(equal_size(mlp_graph(3), num_stages=4))
    assert picture.boxes[3].lines == ("stage 3", "empty:", "a run leaves it out")
    assert not links(picture.links, "skip")


def test_blocks_stand_under_the_heading_of_their_stage() -> None:
    picture = block_picture(split_at(GPT2, ["transformer.h.1", "transformer.h.5.mlp"]))
    assert [box.lines[0] for box in picture.boxes if box.stage == 1] == ["h.1", "h.2", "h.3", "h.4", "h.5 (part)"]
    assert picture.boxes[7].stage == 2 and picture.boxes[7].lines[0] == "h.5 (part)"
    assert picture.headings[1].startswith("stage 1, ")


def test_a_value_that_many_blocks_read_is_a_badge() -> None:
    picture = block_picture(uniform(GPT2, num_stages=4))
    assert not links(picture.links, "skip")
    assert all(heading.endswith("broadcast input: embed: le_0, 128 B") for heading in picture.headings)
    few = block_picture(uniform(gpt2_graph(3, hidden=8, vocab=9), num_stages=3))
    assert [(s, t) for s, t, _ in links(few.links, "skip")] == [(0, 2), (0, 3)]
    assert not any("broadcast" in heading for heading in few.headings)


def test_the_source_is_dot_with_every_box_and_link() -> None:
    source = stage_graph(uniform(GPT2, num_stages=3)).source
    assert all(f"box{index} [label=" in source for index in range(3))
    assert 'dir=none style=dotted xlabel=" tied: wte = lm_head, 25.6 kB in both "' in source


def test_an_unknown_detail_is_refused() -> None:
    with pytest.raises(PipelabError, match="'stage' or 'block'; it is 'module'"):
        stage_graph(uniform(GPT2, num_stages=3), detail="module")


def test_text_of_the_model_is_only_text() -> None:
    hostile = [r"<b>&\N", '"] node', "</text><script>"]
    graph = mlp_graph(3, model="<i>M</i>")
    blocks = tuple(replace(block, label=label) for block, label in zip(graph.blocks, hostile, strict=True))
    graph = replace(graph, blocks=blocks, inputs=(replace(graph.inputs[0], name="<x>"),))
    for detail in ("stage", "block"):
        figure = stage_graph(uniform(graph, num_stages=3), detail=detail)
        own = draw(figure.picture)
        assert set(hostile) <= set(texts(own))
        assert "<script" not in own and "<i>" not in own
        if shutil.which("dot"):
            assert {*hostile, "<x>"} <= set(texts(figure.to_svg()))


@pytest.mark.parametrize("num_stages", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("detail", ["stage", "block"])
def test_it_draws_without_dot(num_stages: int, detail: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figure = stage_graph(uniform(GPT2, num_stages=num_stages), detail=detail)
    monkeypatch.setenv("PATH", str(tmp_path))
    svg = figure._repr_mimebundle_()["image/svg+xml"]
    width = float(ElementTree.fromstring(svg).attrib["width"])
    assert width < 1300
    assert [text for text in texts(svg) if "h.0" in text]
    figure.save_svg(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == svg


@pytest.mark.parametrize(
    "plan", [uniform(GPT2, num_stages=12), split_at(skip_graph(), [1, 2, 3])], ids=["gpt2", "skip"]
)
@pytest.mark.parametrize("detail", ["stage", "block"])
def test_boxes_and_labels_do_not_overlap(plan: Plan, detail: str) -> None:
    svg = ElementTree.fromstring(draw(stage_graph(plan, detail=detail).picture))
    name = "{http://www.w3.org/2000/svg}"
    areas = []
    for rect in svg.iter(f"{name}rect"):
        x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        areas.append((x, y, x + width, y + height))
    for text in svg.iter(f"{name}text"):
        if text.attrib["fill"] != "#000000":  # black text lies in a box
            width = 6.6 * len(text.text or "")
            x = float(text.attrib["x"]) - {"start": 0, "middle": width / 2}[text.attrib["text-anchor"]]
            y = float(text.attrib["y"])
            areas.append((x, y - 9, x + width, y + 2))
    for index, (left, top, right, bottom) in enumerate(areas):
        assert left >= 0 and right <= float(svg.attrib["width"]) and bottom <= float(svg.attrib["height"])
        for other in areas[:index]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@pytest.mark.skipif(shutil.which("dot") is None, reason="the dot program is not installed")
def test_dot_draws_it() -> None:
    figure = stage_graph(uniform(GPT2, num_stages=8), detail="block")
    shown = texts(figure.to_svg())
    assert {"h.0", "h.11", "head", "tied: wte = lm_head, 25.6 kB in both"} <= {text.strip() for text in shown}


def test_its_repr_is_readable_text() -> None:
    assert repr(stage_graph(uniform(GPT2, num_stages=2))) == (
        "GPT2LMHeadModel in 2 stages (batch of 2)\n"
        "stage 0, embed, h.0–5, 372 k parameters, 1.49 MB\n"
        "stage 1, h.6–11, head, 306 k parameters, 1.23 MB"
    )


def test_a_cache_is_part_of_its_stage_and_comes_from_nowhere() -> None:
    tensors = (TensorInfo("x", (2, 4), "float32", 32), TensorInfo("keys", (2, 4), "float32", 5_000_000, batched=True))
    writer = GraphWriter("Decode", 2, tensors)
    first = writer.op("linear", "first", (2, 4), (-1,))
    writer.block("first", "first", first)
    last = writer.op("attend", "last", (2, 4), (first, -2))
    writer.block("last", "last", last)
    graph = replace(writer.graph((last,)), caches=(-2,))
    plan = Plan(graph, (1,))
    picture = stage_picture(plan)
    assert picture.inputs == "x"
    assert picture.links[0].label == "32 B"
    assert "5.00 MB of KV cache" in picture.boxes[1].lines
    assert not any("keys" in link.label for link in picture.links)
    assert plan.boundaries[0].num_bytes == 32
    assert [stage.cache_bytes for stage in plan.stages] == [0, 5_000_000]
