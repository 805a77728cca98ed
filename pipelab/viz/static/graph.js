// The graph: the pieces of the ribbon in sight as nodes, one under its piece each, and what flows between them.

import { formatBytes } from "./numbers.js";
import { OWN_KEYS, el, keep, set, svg } from "./dom.js";
import { edgePath, flowBetween, lanesOf, shapesOf } from "./lanes.js";
import { briefName, tensorOf, tensorWords } from "./values.js";
import { listenToZoom, zoomedTo } from "./zoom.js";

const NODE = { top: 18, height: 24, step: 34, room: 46 };
const STROKES = [1, 2, 3.5];
const HINT = "Double-click or Enter opens a node, Backspace closes it; ← → go from node to node.";

export class GraphPane {
  constructor(view) {
    this.view = view;
    this.at = null;
    this.picture = svg("svg", { class: "pl-graph-svg", "aria-hidden": "true" });
    this.edges = svg("g", { class: "pl-edges" });
    this.lit = svg("g", { class: "pl-lit" });
    this.nodes = svg("g");
    this.cuts = svg("path", { class: "pl-graph-cuts" });
    this.picture.append(this.edges, this.lit, this.cuts, this.nodes);
    for (const parent of [this.edges, this.lit]) keep(parent, STROKES.length, (i) => svg("path", { "stroke-width": STROKES[i] }));
    this.sight = el("div", { class: "pl-graph-sight", role: "application", tabindex: "0", "aria-label": "Graph", ...OWN_KEYS }, this.picture);
    this.story = el("div", { class: "pl-graph-story", "aria-live": "polite" });
    this.node = el("div", { class: "pl-graph", hidden: true }, this.sight, this.story);
    this.listen();
  }

  listen() {
    const { view, sight } = this;
    const { signal } = view.listening;
    const on = (event, listener) => sight.addEventListener(event, listener, { signal });
    const indexOf = (event) => {
      const group = event.target.closest(".pl-node");
      return group ? [...this.nodes.children].indexOf(group) : null;
    };
    on("pointermove", (event) => this.look(indexOf(event)));
    on("pointerleave", () => this.look(null));
    on("blur", () => this.look(null));
    on("dblclick", (event) => (indexOf(event) === null ? this.zoomOut() : this.zoomInto(this.pieces[indexOf(event)])));
    on("keydown", (event) => this.press(event));
    listenToZoom(sight, { get: () => view.zoom, set: (zoom) => view.setZoom(zoom), signal, rangeAt: () => undefined });
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.pieces.length - 1;
    const at = this.at ?? -1;
    const keys = {
      ArrowRight: () => this.look(Math.min(at + 1, last)),
      ArrowLeft: () => this.look(Math.max(at - 1, 0)),
      Home: () => this.look(0),
      End: () => this.look(last),
      Enter: () => this.at !== null && this.zoomInto(this.pieces[this.at]),
      Backspace: () => this.zoomOut(),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  }

  zoomInto({ start, stop }) {
    const { before } = this.view.ribbon.strip;
    this.view.setZoom(zoomedTo(this.view.zoom, [before[start], before[stop]]));
  }

  /** From inside a block to the block, from a block to the whole model. */
  zoomOut() {
    const { view } = this;
    const { before } = view.ribbon.strip;
    const block = view.model.blockAt(this.pieces[this.pieces.length >> 1].start);
    const zoom = zoomedTo([0, 1], [before[block.start], before[block.stop]]);
    const inside = zoom[1] - zoom[0] > 1.05 * (view.zoom[1] - view.zoom[0]);
    view.setZoom(inside ? zoom : [0, 1]);
  }

  layout(width) {
    const { view } = this;
    this.node.hidden = !view.graphOpen;
    if (!view.graphOpen) return;
    this.width = width;
    this.at = null;
    this.pieces = view.ribbon.strip.seenPieces.filter(({ isOpen }) => !isOpen).sort((a, b) => a.start - b.start);
    this.flow = flowBetween(view.model.flow, this.pieces);
    const lanes = lanesOf(this.pieces.length, this.flow.edges);
    this.boxes = this.pieces.map(({ start, stop }, index) => {
      const [x, end] = [view.ribbon.x(start), view.ribbon.x(stop)];
      const gap = Math.min(7, Math.max(0.5, 0.15 * (end - x)));
      return { left: x + gap, right: end - gap, y: NODE.top + NODE.step * lanes[index] };
    });
    const shapes = shapesOf(this.flow.edges, lanes);
    const base = NODE.top + NODE.step * Math.max(...lanes) + NODE.height;
    const arcs = shapes.includes("arc") ? NODE.room : 8;
    this.height = base + arcs;
    const space = { height: NODE.height, base, room: NODE.room - 8 };
    const bytes = this.flow.edges.map(({ values }) => values.reduce((sum, value) => sum + this.tensor(value).bytes, 0));
    const most = Math.max(...bytes);
    this.lines = this.flow.edges.map(({ from, to }, index) => ({
      from, to,
      path: edgePath(shapes[index], this.boxes[from], this.boxes[to], space),
      weight: bytes[index] > most / 2 ? 2 : bytes[index] > most / 8 ? 1 : 0,
    }));
    this.ends = this.stubs();
    set(this.picture, { width, height: this.height, viewBox: `0 0 ${width} ${this.height}` });
    this.drawNodes();
    this.drawLines(this.edges, this.lines, this.ends);
    this.look(null);
  }

  /** Short lines to what lies outside the picture. */
  stubs() {
    const y = (index) => this.boxes[index].y + NODE.height / 2;
    const left = [...this.flow.enters].map((index) => `M${Math.max(this.boxes[index].left - 9, 0)} ${y(index)}H${this.boxes[index].left}`);
    const right = [...this.flow.leaves].map((index) => `M${this.boxes[index].right} ${y(index)}H${Math.min(this.boxes[index].right + 9, this.width)}`);
    return [...left, ...right].join("");
  }

  tensor(value) {
    const { costs, model } = this.view;
    return tensorOf(model, value, costs.rows) ?? { name: "a list", shape: "", bytes: 0 };
  }

  drawNodes() {
    const { ruler } = this.view;
    const groups = keep(this.nodes, this.pieces.length, () => {
      const group = svg("g", { class: "pl-node" });
      group.append(svg("rect", { rx: 4, height: NODE.height }), svg("text"), svg("text", { class: "pl-node-badge" }));
      return group;
    });
    let free = 0;
    for (const [index, { label }] of this.pieces.entries()) {
      const { left, right, y } = this.boxes[index];
      const [rect, name, badge] = groups[index].children;
      const [from, to] = [Math.max(left, 0), Math.min(right, this.width)];
      set(rect, { x: left, y, width: Math.max(right - left, 0.5) });
      const text = [label, label.slice(label.lastIndexOf(".") + 1)].find((part) => ruler.width(part, 11, 500) + 6 <= to - from) ?? "";
      set(name, { x: (from + to) / 2, y: y + NODE.height / 2 + 4, text });
      const reads = [...new Set(this.flow.reads[index].map((value) => briefName(this.tensor(value))))].join(", ");
      const wide = ruler.width(`+ ${reads}`);
      const start = (left + right - wide) / 2;
      const fits = reads && start > free && start + wide < this.width;
      if (fits) free = start + wide + 6;
      set(badge, { x: (left + right) / 2, y: 11, text: fits ? `+ ${reads}` : "" });
      delete groups[index].dataset.stage;
    }
  }

  drawLines(parent, lines, ends = "") {
    for (const [weight, path] of [...parent.children].entries()) {
      const drawn = lines.filter((line) => line.weight === weight).map((line) => line.path);
      set(path, { d: drawn.join("") + (weight ? "" : ends) });
    }
  }

  /** Colours and cuts; the rest does not change in a drag. */
  paint() {
    if (!this.view.graphOpen) return;
    const { colours, cuts, ribbon } = this.view;
    const groups = this.nodes.children;
    let stage = 0;
    for (const [index, { start }] of this.pieces.entries()) {
      while (stage < cuts.length && start >= cuts[stage]) stage += 1;
      if (groups[index].dataset.stage === `${stage}`) continue;
      groups[index].dataset.stage = stage;
      groups[index].firstChild.style.fill = colours[stage % colours.length];
    }
    const xs = cuts.map((cut) => ribbon.x(cut)).filter((x) => x >= 0 && x <= this.width);
    set(this.cuts, { d: xs.map((x) => `M${x.toFixed(1)} 0V${this.height}`).join("") });
  }

  /** Say what flows into a node and out of it, and light it up; null ends it. */
  look(index) {
    if (index === this.at && index !== null) return;
    this.nodes.children[this.at]?.classList.remove("pl-at");
    this.at = index;
    this.nodes.children[index]?.classList.add("pl-at");
    const lit = index === null ? [] : this.lines.filter(({ from, to }) => from === index || to === index);
    this.drawLines(this.lit, lit);
    this.story.replaceChildren(...(index === null ? [HINT] : this.tell(index)).map((text) => el("div", { text: this.view.ruler.fit(text, this.width, 12), title: text })));
  }

  tell(index) {
    const { model } = this.view;
    const { flow } = model;
    const { start, stop, label, path } = this.pieces[index];
    const reads = new Set();
    const makes = [];
    for (let op = start; op < stop; op++) {
      for (const value of flow.sources(op)) if (value < start) reads.add(value);
      if (flow.outputs.has(op) || flow.readers(op).at(-1) >= stop) makes.push(op);
    }
    const words = (values) => values.map((value) => this.tensor(value)).sort((a, b) => b.bytes - a.bytes)
      .map((tensor) => `${tensorWords(tensor)}, ${formatBytes(tensor.bytes)}`).join(" · ") || "nothing";
    const name = path && path !== label ? `${path}: ${label}` : label;
    return [`${name} reads ${words([...reads])}`, `makes ${words(makes)}`];
  }
}
