// The graph: the pieces of the ribbon in sight as nodes, one under its piece each, and what flows between them.

import { formatBytes } from "./numbers.js";
import { OWN_KEYS, el, keep, set, svg } from "./dom.js";
import { edgePath, flowBetween, lanesOf, shapesOf } from "./lanes.js";
import { briefName, tensorOf, tensorWords } from "./values.js";
import { listenToZoom, zoomedTo } from "./zoom.js";

const NODE = { top: 18, height: 24, step: 34, room: 46 };
const STROKES = [1, 2, 3.5];
const HINT = "Double-click or Enter opens a node, Backspace closes it; ← → go from node to node.";

const stemOf = (label) => label.slice(0, label.lastIndexOf(".") + 1);

function makeNode() {
  const group = svg("g", { class: "pl-node" });
  group.append(svg("rect", { rx: 4, height: NODE.height }), svg("text"), svg("text", { class: "pl-node-badge" }));
  return group;
}

export class GraphPane {
  constructor(view) {
    this.view = view;
    this.at = null;
    this.picture = svg("svg", { class: "pl-graph-svg", "aria-hidden": "true" });
    this.grounds = svg("g", { class: "pl-graph-grounds" });
    this.edges = svg("g", { class: "pl-edges" });
    this.lit = svg("g", { class: "pl-lit" });
    this.nodes = svg("g");
    this.cuts = svg("path", { class: "pl-graph-cuts" });
    this.picture.append(this.grounds, this.edges, this.lit, this.cuts, this.nodes);
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
      Enter: () => this.at !== null && this.stay(() => this.zoomInto(this.pieces[this.at])),
      Backspace: () => this.stay(() => this.zoomOut()),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  }

  /** Zoom, and go on from the node that is where one was. */
  stay(zoom) {
    const position = this.pieces[this.at ?? this.pieces.length >> 1].start;
    zoom();
    this.look(this.pieces.findIndex(({ stop }) => stop > position));
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
    this.layoutLines(lanes);
    set(this.picture, { width, height: this.height, viewBox: `0 0 ${width} ${this.height}` });
    this.drawNodes();
    this.drawLines(this.edges, this.lines, this.ends);
    this.look(null);
  }

  /** Lines as paths; the thicker, the more bytes. */
  layoutLines(lanes) {
    const { edges } = this.flow;
    const shapes = shapesOf(edges, lanes);
    const base = NODE.top + NODE.step * Math.max(...lanes) + NODE.height;
    this.height = base + (shapes.includes("arc") ? NODE.room : 8);
    const space = { height: NODE.height, base, room: NODE.room - 8 };
    const bytes = edges.map(({ values }) => values.reduce((sum, value) => sum + this.tensor(value).bytes, 0));
    const most = Math.max(...bytes);
    this.lines = edges.map(({ from, to }, index) => ({
      from, to,
      path: edgePath(shapes[index], this.boxes[from], this.boxes[to], space),
      weight: bytes[index] > most / 2 ? 2 : bytes[index] > most / 8 ? 1 : 0,
    }));
    this.ends = this.stubs();
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
    const groups = keep(this.nodes, this.pieces.length, makeNode);
    // Of "h.0" to "h.11" all say their number where one has no room for more.
    const tight = new Set(this.pieces.filter(({ label }, index) => !this.fits(label, index)).map(({ label }) => stemOf(label)));
    const badges = this.badges();
    for (const [index, { label }] of this.pieces.entries()) {
      const { left, right, y } = this.boxes[index];
      const [rect, name, badge] = groups[index].children;
      const middle = this.middle(index);
      const short = label.slice(stemOf(label).length);
      const names = /^\d+$/.test(short) && tight.has(stemOf(label)) ? [short] : [label, short];
      set(rect, { x: left, y, width: Math.max(right - left, 0.5) });
      set(name, { x: middle, y: y + NODE.height / 2 + 4, text: names.find((text) => this.fits(text, index)) ?? "" });
      set(badge, { x: middle, y: 11, text: badges[index] });
      delete groups[index].dataset.stage;
    }
  }

  /** Whether a name has room in its node, or in what is in sight of it. */
  fits(text, index) {
    const { left, right } = this.boxes[index];
    return this.view.ruler.width(text, 11, 500) + 4 <= Math.min(right, this.width) - Math.max(left, 0);
  }

  middle(index) {
    const { left, right } = this.boxes[index];
    return (Math.max(left, 0) + Math.min(right, this.width)) / 2;
  }

  /** What comes to each node from far away; where the words have no room beside each other, a mark at each of them. */
  badges() {
    const { model, ruler } = this.view;
    const words = this.flow.reads.map((values) => {
      const names = new Set(values.map((value) => briefName(model, this.tensor(value))));
      return names.size ? `+ ${[...names].join(", ")}` : "";
    });
    let free = 0;
    const fits = words.every((text, index) => {
      const half = ruler.width(text) / 2;
      const [left, right] = [this.middle(index) - half, this.middle(index) + half];
      if (!text) return true;
      const room = left > free && right < this.width;
      free = right + 5;
      return room;
    });
    this.mark = fits ? "" : ` + stands for ${[...new Set(words.filter(Boolean))].map((text) => text.slice(2)).join("; ")}.`;
    return fits ? words : words.map((text) => (text ? "+" : ""));
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
    const xs = [0, ...cuts.map((cut) => Math.min(Math.max(ribbon.x(cut), 0), this.width)), this.width];
    for (const [index, ground] of [...keep(this.grounds, cuts.length + 1, () => svg("rect", { y: 0 }))].entries()) {
      set(ground, { x: xs[index], width: xs[index + 1] - xs[index], height: this.height });
      ground.style.fill = colours[index % colours.length];
    }
    set(this.cuts, { d: xs.filter((x) => x > 0 && x < this.width).map((x) => `M${x.toFixed(1)} 0V${this.height}`).join("") });
  }

  /** Say what flows into a node and out of it, and light it up; null ends it. */
  look(index) {
    if (index === this.at && index !== null) return;
    this.nodes.children[this.at]?.classList.remove("pl-at");
    this.at = index;
    this.nodes.children[index]?.classList.add("pl-at");
    const lit = index === null ? [] : this.lines.filter(({ from, to }) => from === index || to === index);
    this.drawLines(this.lit, lit);
    this.story.replaceChildren(...(index === null ? [HINT + this.mark] : this.tell(index)).map((text) => el("div", { text: this.view.ruler.fit(text, this.width, 12), title: text })));
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
    const name = path && !path.endsWith(label) ? `${path}: ${label}` : (path ?? label);
    return [`${name} reads ${words([...reads])}`, `makes ${words(makes)}`];
  }
}
