// The explorer's browser half: one ES module without imports. Python sends `data` once; while a divider is
// dragged, everything shown is computed here, and equals what pipelab's Plan says.
//
//   numbers -> text -> layout -> the five panes (ribbon, stages, links, timeline, controls) -> render
//
// Text from the model (names) is only ever set through textContent.

const SVG = "http://www.w3.org/2000/svg";
const LEVELS = ["block", "module", "op"];
const THROTTLE_MS = 60;
const NO_ANSWER_MS = 4000;
const RIBBON = { top: 12, height: 40, bottom: 6 };
const BOX_HEIGHT = { plain: 68, timed: 86 };
const LANE_HEIGHT = 20;
const MAX_LANES = 3;

// --- numbers: as pipelab/units.py and pipelab/plan.py compute them ----------------------------------------------

/** A number with this many decimals, exact ties to even, as Python writes it (toFixed rounds them up). */
export function fixed(value, digits) {
  const doubled = value * 2 ** (digits + 1);
  if (Number.isInteger(doubled) && doubled % 2 !== 0) {
    const floor = (doubled * 5 ** digits - 1) / 2;
    return ((floor % 2 === 0 ? floor : floor + 1) / 10 ** digits).toFixed(digits);
  }
  return value.toFixed(digits);
}

function threeDigits(value) {
  const size = Math.abs(value);
  return fixed(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

function prefixed(value) {
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= factor * 0.9995) return [threeDigits(value / factor), prefix];
  }
  return [fixed(value, 0), ""];
}

export const formatCount = (count) => prefixed(count).join(" ").trimEnd();

export const formatBytes = (bytes) => `${prefixed(bytes).join(" ")}B`;

export function formatSeconds(seconds) {
  for (const [factor, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (Math.abs(seconds) >= factor * 0.9995 || unit === "µs") return `${threeDigits(seconds / factor)} ${unit}`;
  }
}

/** "92 of 80 GB", in the unit of what there is, and rounded apart: the need never seems to fit. */
export function formatNeed(bytes, capacity) {
  const [factor, unit] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([factor]) => capacity >= factor) ?? [1, "B"];
  const digits = capacity / factor < 10 && factor > 1 ? 1 : 0;
  const rounded = (round, value) => (round((value / factor) * 10 ** digits) / 10 ** digits).toFixed(digits);
  return `${rounded(Math.ceil, bytes)} of ${rounded(Math.floor, capacity)} ${unit}`;
}

const percent = (share) => `${fixed(share * 100, 0)}%`;

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;

/** Index of the first element that is not less than `value` in an ascending list. */
function firstAtLeast(sorted, value) {
  let low = 0;
  for (let high = sorted.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Sizes of what ops use, summed over any range of ops: what several of them use counts once. */
class Sizes {
  constructor(numOps, used) {
    this.before = new Float64Array(numOps + 1);
    this.shared = [];
    for (const [uses, size] of used) {
      if (uses.length > 1) this.shared.push([uses, size]);
      else this.before[uses[0] + 1] += size;
    }
    for (let op = 0; op < numOps; op++) this.before[op + 1] += this.before[op];
  }

  between(start, stop) {
    let sum = this.before[stop] - this.before[start];
    for (const [uses, size] of this.shared) {
      if (uses[firstAtLeast(uses, start)] < stop) sum += size;
    }
    return sum;
  }
}

/** A traced model: sizes of any range of ops, and what is alive at each legal cut. */
export class Model {
  constructor(data) {
    this.data = data;
    this.numOps = data.num_ops;
    this.params = new Sizes(data.num_ops, data.weights.map(([uses, elements]) => [uses, elements]));
    this.bytes = new Sizes(data.num_ops, data.weights.map(([uses, , bytes]) => [uses, bytes]));
    this.shared = data.weights
      .filter(([uses]) => uses.length > 1)
      .map(([uses, , bytes, label]) => ({ uses, bytes, label }));
    this.cutIndex = new Map(data.cuts.positions.map((position, index) => [position, index]));
    this.byLevel = {};
    for (const [rank, level] of LEVELS.entries()) {
      this.byLevel[level] = data.cuts.positions.filter((_, i) => LEVELS.indexOf(data.cuts.levels[i]) <= rank);
    }
  }

  /** Elements and bytes of the parameters that ops `start` to `stop` read, each counted once. */
  size(start, stop) {
    return { params: this.params.between(start, stop), bytes: this.bytes.between(start, stop) };
  }

  /** The stages between these cuts: start, stop, params, bytes, and the labels of the blocks they hold. */
  stages(cuts) {
    const edges = [0, ...cuts, this.numOps];
    return edges.slice(1).map((stop, index) => {
      const start = edges[index];
      return { index, start, stop, ...this.size(start, stop) };
    });
  }

  labels(stage, write = (label) => label) {
    const inside = this.data.blocks.filter(([, start, stop]) => start < stage.stop && stop > stage.start);
    return shorten(inside.map(([label]) => write(label)));
  }

  cut(position) {
    const index = this.cutIndex.get(position);
    const { labels, bytes, alive } = this.data.cuts;
    return { position, label: labels[index], bytes: bytes[index], alive: alive[index] };
  }

  /** The legal cut nearest to where `wanted` is, strictly between two positions; undefined if there is none. */
  nearest(level, wanted, above, below) {
    const positions = this.byLevel[level];
    const first = firstAtLeast(positions, above + 1);
    const stop = firstAtLeast(positions, below);
    if (first >= stop) return undefined;
    const right = Math.min(Math.max(firstAtLeast(positions, wanted), first), stop - 1);
    const left = Math.max(right - 1, first);
    return wanted - positions[left] <= positions[right] - wanted ? positions[left] : positions[right];
  }

  /** The cut `steps` legal cuts away, as far as it goes between two positions. */
  step(level, from, steps, above, below) {
    const positions = this.byLevel[level];
    const at = firstAtLeast(positions, from);
    const past = steps > 0 && positions[at] !== from ? steps - 1 : steps;
    const lowest = firstAtLeast(positions, above + 1);
    const highest = firstAtLeast(positions, below) - 1;
    const found = Math.min(Math.max(at + past, lowest), highest);
    return lowest > highest || Math.sign(positions[found] - from) === -Math.sign(steps) ? from : positions[found];
  }
}

/**
 * What stages cost, as pipelab's planner counts it: seconds of a micro-batch on one kind of device, with what crosses
 * the stage's boundaries; parameters where there are no times.
 */
export class Costs {
  constructor(model, state) {
    this.model = model;
    this.state = state;
    this.timed = state.time_before !== undefined;
    if (this.timed) this.held = new Sizes(model.numOps, state.held);
  }

  /** The stages between these cuts, with `cost`; where there are times also its parts and the bytes it `needs`. */
  stages(cuts) {
    const stages = this.model.stages(cuts);
    return stages.map((stage) => (this.timed ? this.timedStage(stage, stages.length) : { ...stage, cost: stage.params }));
  }

  timedStage(stage, count) {
    const { time_before, alone_s, fixed_s, overlap, reserve_bytes } = this.state;
    const { start, stop } = stage;
    // A single stage has the machine to itself.
    const work = (count > 1 ? time_before[stop] - time_before[start] : alone_s) + fixed_s;
    const receive = this.transfer(start);
    const send = this.transfer(stop);
    const cost = overlap ? Math.max(work, receive, send) : receive + work + send;
    const needs = stage.bytes + this.held.between(start, stop) + this.peak(start, stop) + reserve_bytes;
    return { ...stage, work, receive, send, cost, needs };
  }

  /** Seconds to move what crosses a cut; the ends of the model are none. */
  transfer(position) {
    return this.state.transfer_s[this.model.cutIndex.get(position)] ?? 0;
  }

  peak(start, stop) {
    const { peak_bytes } = this.state;
    let most = 0;
    for (let op = start; op < stop; op++) most = Math.max(most, peak_bytes[op]);
    return most;
  }

  /** The stages that need more memory than their device has. */
  tooLarge(stages) {
    return this.timed ? stages.filter((stage) => stage.needs > this.state.memory_bytes) : [];
  }

  /** Where time is spent, or parameters are held, most; then what does not fit, or how far from the optimum that is. */
  verdict(stages, optimum) {
    const mean = stages.reduce((sum, stage) => sum + stage.cost, 0) / stages.length;
    if (!mean) return "The model has no parameters.";
    const { index, cost } = dearest(stages);
    const far = optimum ? ` ${distance(cost, optimum)}` : "";
    if (!this.timed) return `Stage ${index} holds ${formatCount(cost)} parameters, ${fixed(cost / mean, 2)} × the mean.${far}`;
    const tooLarge = this.tooLarge(stages);
    const is = stages.length > 1 ? "is the bottleneck:" : "takes";
    const text = `Stage ${index} ${is} ${formatSeconds(cost)} per micro-batch`;
    if (tooLarge.length) return `${text}. ${this.shortage(tooLarge)}`;
    return stages.length > 1 ? `${text}, the average is ${formatSeconds(mean)}.${far}` : `${text}.`;
  }

  shortage(tooLarge) {
    const { memory_bytes } = this.state;
    const [{ index, needs }] = tooLarge;
    if (tooLarge.length === 1) return `Stage ${index} needs ${formatNeed(needs, memory_bytes)}.`;
    const names = tooLarge.map((stage) => stage.index);
    const which = names.length > 3 ? `${names.length} stages` : `Stages ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
    return `${which} need more than ${formatBytes(memory_bytes)}.`;
  }
}

const dearest = (stages) => stages.reduce((most, stage) => (stage.cost > most.cost ? stage : most));

/** Nobody measures less: between such splits there is nothing to choose. */
const CLOSE = 0.005;

/** How far above the optimum a cost is, in words. */
function distance(cost, optimum) {
  const above = cost / optimum - 1;
  const size = 100 * Math.abs(above);
  if (size < 1e-7) return "This is optimal.";
  if (size <= 100 * CLOSE) return `Optimal within ${100 * CLOSE}\u00a0%.`;
  const text = `${fixed(size, size < 9.95 ? 1 : 0)}\u00a0%`;
  return above > 0 ? `${text} above optimal.` : `${text} below the best split between blocks.`;
}

const lastPart = (label) => label.slice(label.lastIndexOf(".") + 1);

/** Labels in a few words; runs of numbered blocks are joined: "embed, h.0–2". */
export function shorten(labels) {
  const parts = [];
  for (const label of labels) {
    const dot = label.lastIndexOf(".");
    const stem = label.slice(0, Math.max(dot, 0));
    const number = /^\d+$/.test(label.slice(dot + 1)) ? Number(label.slice(dot + 1)) : null;
    const before = parts.at(-1);
    if (number === null) parts.push({ stem: label, first: null, last: null });
    else if (before && before.stem === stem && before.last === number - 1) before.last = number;
    else parts.push({ stem, first: number, last: number });
  }
  return parts
    .map(({ stem, first, last }) => {
      if (first === null) return stem;
      const dotted = stem ? `${stem}.` : "";
      return first === last ? `${dotted}${first}` : `${dotted}${first}–${last}`;
    })
    .join(", ");
}

/** Weights and values that join stages which are not neighbours: tied weights, and values relayed by a stage. */
export function links(model, cuts, stages) {
  const found = new Map();
  const add = (kind, ends, name, bytes) => {
    const key = `${kind} ${ends}`;
    const link = found.get(key) ?? { kind, ends, names: [], bytes: 0 };
    link.names.push(name);
    link.bytes += bytes;
    found.set(key, link);
  };
  for (const { uses, bytes, label } of model.shared) {
    const ends = [...new Set(uses.map((op) => stages.findIndex((stage) => op < stage.stop)))];
    if (ends.length > 1) add("tied", ends, label, bytes);
  }
  const crossings = new Map();
  for (const [index, cut] of cuts.entries()) {
    for (const tensor of model.cut(cut).alive) {
      const crossing = crossings.get(tensor);
      if (crossing) crossing.last = index;
      else crossings.set(tensor, { first: index, last: index });
    }
  }
  for (const [tensor, { first, last }] of crossings) {
    const [text, bytes] = model.data.tensors[tensor];
    if (last > first) add("skip", [first, last + 1], text, bytes);
  }
  return [...found.values()].sort((a, b) => b.bytes - a.bytes);
}

function linkText({ kind, ends, names, bytes }) {
  const shown = names.length > 1 ? `${names[0]} and ${names.length - 1} more` : names[0];
  if (kind === "skip") return `skip${shown.includes(": ") ? " from" : ":"} ${shown}, ${formatBytes(bytes)} across ${ends[1] - ends[0]} boundaries`;
  const where = ends.length === 2 ? "in both" : `in ${ends.length} stages`;
  return `${shown.includes(" = ") ? "tied" : "shared"}: ${shown}, ${formatBytes(bytes)} ${where}`;
}

// --- elements ---------------------------------------------------------------------------------------------------

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
  return node;
}

function el(tag, attributes = {}, ...children) {
  const node = set(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

const svg = (tag, attributes = {}) => set(document.createElementNS(SVG, tag), attributes);

/** Make `parent` hold exactly `count` children, reusing those it has: focus and hover survive. */
function keep(parent, count, make) {
  while (parent.childElementCount > count) parent.lastElementChild.remove();
  while (parent.childElementCount < count) parent.append(make(parent.childElementCount));
  return parent.children;
}

// JupyterLab's notebook shortcuts ("d d" deletes the cell) reach any focusable element without this attribute.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

const button = (text, attributes = {}) => el("button", { type: "button", text, ...OWN_KEYS, ...attributes });

/** Measures text in the widget's own font. */
class Ruler {
  constructor() {
    this.context = document.createElement("canvas").getContext("2d");
  }

  use(root) {
    const { fontFamily } = getComputedStyle(root);
    const family = fontFamily || "sans-serif";
    if (family === this.family) return;
    this.family = family;
    this.widths = new Map();
  }

  width(text, size = 11, weight = 400) {
    const key = `${size} ${weight} ${text}`;
    if (!this.widths.has(key)) {
      this.context.font = `${weight} ${size}px ${this.family}`;
      this.widths.set(key, this.context.measureText(text).width);
    }
    return this.widths.get(key);
  }

  /** The text, or as much of it as fits. */
  fit(text, width, size = 11) {
    if (this.width(text, size) <= width) return text;
    let length = text.length;
    this.context.font = `400 ${size}px ${this.family}`;
    while (length > 1 && this.context.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
    return length > 1 ? `${text.slice(0, length).trimEnd()}…` : "";
  }
}

// --- layout: where pieces, boxes and dividers lie, in pixels -----------------------------------------------------

/** Left edges of the ribbon's pieces: a floor for each, the rest by parameters. */
export function pieceEdges(model, width) {
  const { blocks } = model.data;
  const sizes = blocks.map(([, start, stop]) => model.size(start, stop).params);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const floor = total ? Math.min(8, width / blocks.length / 2) : width / blocks.length;
  const rest = width - floor * blocks.length;
  const edges = [0];
  for (const size of sizes) edges.push(edges.at(-1) + floor + (total ? (rest * size) / total : 0));
  return edges;
}

/** Where a cut lies on the ribbon: evenly between the ops of its block. */
function cutX(model, edges, position) {
  const { blocks } = model.data;
  const index = Math.max(0, firstAtLeast(blocks.map(([, , stop]) => stop), position + 1));
  if (index >= blocks.length) return edges.at(-1);
  const [, start, stop] = blocks[index];
  return edges[index] + ((edges[index + 1] - edges[index]) * (position - start)) / (stop - start);
}

/** Left edges of equal boxes, each as near to its wanted centre as the others and the width let it. */
export function placeBoxes(centres, box, gap, width) {
  const lefts = centres.map((centre) => centre - box / 2);
  for (let i = 0; i < lefts.length; i++) lefts[i] = Math.max(lefts[i], i ? lefts[i - 1] + box + gap : 0);
  for (let i = lefts.length - 1; i >= 0; i--) {
    lefts[i] = Math.min(lefts[i], i === lefts.length - 1 ? width - box : lefts[i + 1] - box - gap);
  }
  return lefts;
}

/** What marks the dearest stage, the first that there is room for. */
const MARKS = { plain: ["▲ largest", "largest"], timed: ["▲ bottleneck", "▲ slowest", "slowest"] };

/** How the stage boxes are laid out: in one row under the ribbon, or wrapped into equal rows. */
function boxGrid(count, width, ruler, timed) {
  const [mark, short] = MARKS[timed ? "timed" : "plain"].slice(-2);
  const texts = [ruler.width("88.8 MB", 12), ruler.width("88", 12, 600) + ruler.width(short, 11, 600) + 6];
  if (timed) texts.push(ruler.width("888 of 888 GB", 11, 600));
  const least = Math.ceil(Math.max(...texts)) + 16;
  const wide = Math.ceil(ruler.width("88.8 M", 13) + ruler.width("88.8 MB", 12)) + 32;
  const named = Math.ceil(ruler.width("Stage 88", 12, 600) + ruler.width(mark, 11, 600)) + 30;
  const grid = (rows, columns, box) => ({ rows, columns, box, gap, narrow: box < wide, named: box >= named });
  const gap = Math.ceil(ruler.width("88.8 MB", 11)) + 12;
  const most = Math.floor((width - (count - 1) * gap) / count);
  if (most >= least) {
    return grid(1, count, Math.min(most, Math.max(named, Math.min(184, Math.floor(0.72 * most)))));
  }
  const rows = Math.ceil(count / Math.floor(width / (least + gap)));
  const columns = Math.ceil(count / rows);
  return grid(rows, columns, Math.floor(width / columns) - gap);
}

// --- panes ------------------------------------------------------------------------------------------------------

class Ribbon {
  constructor(view) {
    this.view = view;
    this.picture = svg("svg", { class: "pl-ribbon-svg", "aria-hidden": "true" });
    this.fills = svg("g");
    this.ticks = svg("path", { class: "pl-ticks" });
    this.pieces = svg("g");
    this.handles = el("div", { class: "pl-handles" });
    this.tip = el("div", { class: "pl-tip", hidden: true });
    this.picture.append(this.fills, this.ticks, this.pieces);
    this.node = el("div", { class: "pl-ribbon" }, this.picture, this.handles, this.tip);
  }

  /** Draw what a drag does not change: the pieces, their names, and a tick for each legal cut. */
  layout(width) {
    const { model, ruler, level } = this.view;
    const { top, height, bottom } = RIBBON;
    this.width = width;
    this.edges = pieceEdges(model, width);
    const stops = model.data.blocks.map(([, , stop]) => stop);
    this.x = (position) => cutX(model, this.edges, position);
    this.stops = stops;
    set(this.picture, { width, height: top + height + bottom, viewBox: `0 0 ${width} ${top + height + bottom}` });
    this.names = [];
    const names = this.pieceNames();
    const pieces = model.data.blocks.map(([label, start, stop], index) => {
      const x = this.edges[index];
      const span = this.edges[index + 1] - x;
      const group = svg("g", { class: "pl-piece" });
      const title = svg("title", { text: `${label}: ${formatCount(model.size(start, stop).params)} parameters` });
      group.append(title, svg("rect", { x, y: top, width: span, height }));
      if (index) group.append(svg("path", { d: `M${x} ${top}v${height}` }));
      const name = names[index];
      const wide = ruler.width(name, 11, 500);
      if (wide + 10 <= span || this.isTick(name, wide, index)) {
        const text = svg("text", { x: x + span / 2, y: top + height / 2 + 4, text: name });
        group.append(text);
        this.names.push({ text, left: x + (span - wide) / 2 - 3, right: x + (span + wide) / 2 + 3 });
      }
      return group;
    });
    this.pieces.replaceChildren(...pieces);
    const cuts = model.byLevel[level];
    const marks = cuts.length <= width / 3 ? cuts : [];
    set(this.ticks, { d: marks.map((cut) => `M${this.x(cut).toFixed(1)} ${top + height}v4`).join("") });
  }

  /** Whether a piece too narrow for its number shows it all the same: the 10th, the 20th, over its nameless neighbours. */
  isTick(name, wide, index) {
    const left = this.edges[index];
    const span = this.edges[index + 1] - left;
    const every = [5, 10, 20, 50].find((count) => wide + 12 <= span * count);
    const overhang = (wide - span) / 2;
    const inside = left - overhang > (this.names.at(-1)?.right ?? 0) && this.edges[index + 1] + overhang < this.width;
    return every && inside && /^\d+$/.test(name) && Number(name) % every === 0 && Number(name) > 0;
  }

  /** What to write on the pieces: "h.3", or "3" for all of them where one would not fit. */
  pieceNames() {
    const { blocks } = this.view.model.data;
    const stem = (label) => label.slice(0, label.lastIndexOf(".") + 1);
    const fits = ([label], index) => this.view.ruler.width(label, 11, 500) + 10 <= this.edges[index + 1] - this.edges[index];
    const tight = new Set(blocks.filter((block, index) => !fits(block, index)).map(([label]) => stem(label)));
    return blocks.map(([label]) => (tight.has(stem(label)) ? label.slice(stem(label).length) : label));
  }

  paint(cuts, stages, dragged) {
    const { top, height } = RIBBON;
    const { data, colours } = this.view;
    const xs = [0, ...cuts.map(this.x), this.width];
    const fills = keep(this.fills, stages.length, () => svg("rect", { y: top, height, rx: 2 }));
    for (const [index, fill] of [...fills].entries()) {
      const left = xs[index] + (index ? 1 : 0);
      set(fill, { x: left, width: Math.max(0.5, xs[index + 1] - left - (index < cuts.length ? 1 : 0)) });
      fill.style.fill = colours[index % colours.length];
    }
    for (const { text, left, right } of this.names) {
      const crossed = xs.some((x) => x > left && x < right);
      text.style.display = crossed ? "none" : "";
    }
    const handles = keep(this.handles, cuts.length, (index) => this.view.makeHandle(index));
    for (const [index, handle] of [...handles].entries()) this.paintHandle(handle, index, cuts, xs);
    this.node.classList.toggle("pl-dragging", dragged !== null);
    return { xs, numOps: data.num_ops };
  }

  paintHandle(handle, index, cuts, xs) {
    const { model, level } = this.view;
    const x = xs[index + 1];
    const left = Math.min(9, Math.max(3, (x - xs[index]) / 2));
    const right = Math.min(9, Math.max(3, (xs[index + 2] - x) / 2));
    handle.style.transform = `translateX(${x.toFixed(2)}px)`;
    handle.firstChild.style.left = `${-left}px`;
    handle.firstChild.style.width = `${left + right}px`;
    const above = index ? cuts[index - 1] : 0;
    const below = index < cuts.length - 1 ? cuts[index + 1] : model.numOps;
    set(handle, {
      "data-split": index + 1,
      "aria-label": `Split ${index + 1} between stage ${index} and ${index + 1}`,
      "aria-valuemin": Math.min(cuts[index], model.step(level, cuts[index], -Infinity, above, below)),
      "aria-valuemax": Math.max(cuts[index], model.step(level, cuts[index], Infinity, above, below)),
      "aria-valuenow": cuts[index],
      "aria-valuetext": model.cut(cuts[index]).label,
    });
  }

  /** Say what crosses the cut in hand; no index hides it. */
  showTip(cuts, index) {
    this.tip.hidden = index === null;
    this.view.hint.classList.toggle("pl-covered", index !== null);
    if (index === null) return;
    const cut = this.view.model.cut(cuts[index]);
    const texts = crossing(this.view.model, cut).map((what) => `${cut.label}: ${what}${formatBytes(cut.bytes)} per batch`);
    const room = this.width - 20;
    // One line: a second would cover the verdict, which is read during a drag.
    const fits = texts.find((text) => this.view.ruler.width(text, 12) <= room);
    this.tip.textContent = fits ?? this.view.ruler.fit(texts.at(-1), room, 12);
    const half = this.tip.offsetWidth / 2;
    const x = Math.min(Math.max(this.x(cut.position), half), this.width - half);
    this.tip.style.transform = `translate(${Math.round(x - half)}px, -100%)`;
  }
}

/** What is alive at a cut, from many words to none. */
function crossing({ data }, { alive }) {
  const first = alive.slice(0, 3).map((tensor) => data.tensors[tensor][0]);
  const more = alive.length > 3 ? [`${alive.length - 3} more`] : [];
  const said = (texts) => (texts.length ? `${[...texts, ...more].join(" + ")}, ` : "");
  return [said(first), said(first.map((text) => text.replace(/ \([^()]*\)$/, ""))), `${plural(alive.length, "value")}, `, ""];
}

class Stages {
  constructor(view) {
    this.view = view;
    this.lines = svg("svg", { class: "pl-lines", "aria-hidden": "true" });
    this.curtains = svg("g", { class: "pl-curtains" });
    this.arrows = svg("path", { class: "pl-arrows" });
    this.heads = svg("path", { class: "pl-heads" });
    this.labels = svg("g", { class: "pl-arrow-labels" });
    this.lines.append(this.curtains, this.arrows, this.heads, this.labels);
    this.boxes = el("div", { class: "pl-boxes", role: "list", "aria-label": "Stages" });
    this.node = el("div", { class: "pl-stages" }, this.lines, this.boxes);
  }

  layout(count, width) {
    this.width = width;
    const { timed } = this.view.costs;
    this.grid = boxGrid(count, width, this.view.ruler, timed);
    const { rows, box, narrow } = this.grid;
    this.boxHeight = BOX_HEIGHT[timed ? "timed" : "plain"];
    this.top = rows === 1 ? 22 : 20;
    this.step = this.boxHeight + 14;
    this.height = this.top + (rows - 1) * this.step + this.boxHeight;
    set(this.lines, { width, height: this.height, viewBox: `0 0 ${width} ${this.height}` });
    this.node.style.height = `${this.height}px`;
    this.node.classList.toggle("pl-narrow", narrow);
    this.node.classList.toggle("pl-timed", timed);
    for (const node of keep(this.boxes, count, () => this.makeBox())) {
      node.style.width = `${box}px`;
      node.style.height = `${this.boxHeight}px`;
    }
  }

  makeBox() {
    const names = ["name", "mark", "time", "params", "bytes", "holds", "bar"];
    return el("div", { class: "pl-box", role: "listitem" }, ...names.map((name) => el("span", { class: `pl-box-${name}` })));
  }

  /** Top left corners of the boxes. */
  corners(xs) {
    const { rows, columns, box, gap } = this.grid;
    if (rows === 1) {
      const centres = xs.slice(1).map((x, index) => (x + xs[index]) / 2);
      return placeBoxes(centres, box, gap, this.width).map((x) => [x, this.top]);
    }
    return xs.slice(1).map((_, index) => [
      (index % columns) * (box + gap) + gap,
      this.top + Math.floor(index / columns) * this.step,
    ]);
  }

  paint(cuts, stages, xs) {
    const corners = this.corners(xs);
    const most = dearest(stages);
    const uneven = stages.some((stage) => stage.cost < most.cost);
    for (const [index, stage] of stages.entries()) {
      const share = most.cost ? stage.cost / most.cost : 0;
      this.paintBox(this.boxes.children[index], stage, corners[index], uneven && stage === most, share);
    }
    this.paintCurtains(xs, corners);
    this.paintArrows(cuts, corners);
    return corners;
  }

  paintBox(node, stage, [x, y], marked, share) {
    const { colours, costs, model, ruler } = this.view;
    const { narrow, named, box } = this.grid;
    const [name, mark, time, params, bytes, holds, bar] = node.children;
    const labels = model.labels(stage);
    const need = costs.tooLarge([stage]).length ? formatNeed(stage.needs, costs.state.memory_bytes) : "";
    node.style.transform = `translate(${x.toFixed(2)}px, ${y}px)`;
    node.style.setProperty("--pl-stage", colours[stage.index % colours.length]);
    node.classList.toggle("pl-largest", marked);
    node.classList.toggle("pl-too-large", Boolean(need));
    name.textContent = named ? `Stage ${stage.index}` : `${stage.index}`;
    const beside = box - 30 - ruler.width(name.textContent, 12, 600);
    const marks = MARKS[costs.timed ? "timed" : "plain"];
    mark.textContent = marked ? (marks.find((text) => ruler.width(text, 11, 600) <= beside) ?? marks.at(-1)) : "";
    time.textContent = costs.timed ? formatSeconds(stage.cost) : "";
    bar.style.transform = `scaleX(${share.toFixed(3)})`;
    params.textContent = formatCount(stage.params);
    const room = box - 22;
    const needs = ruler.width(`needs ${need}`, 11, 600) <= room + (narrow ? 8 : 0) ? `needs ${need}` : need;
    bytes.textContent = need && narrow ? needs : formatBytes(stage.bytes);
    // Of a long path the number says most.
    const held = ruler.width(labels) <= room ? labels : model.labels(stage, lastPart);
    holds.textContent = narrow ? "" : need ? needs : ruler.fit(held, room);
    const about = this.describe(stage, share, marked, need);
    node.title = `Stage ${stage.index}: ${labels}${about.timed}`;
    set(node, {
      "aria-label":
        `Stage ${stage.index}: ${labels}; ${formatCount(stage.params)} parameters, ` +
        `${formatBytes(stage.bytes)}${about.marked}${about.timed.replaceAll("\n", "; ")}`,
    });
  }

  /** What a box's tooltip and label say besides sizes. */
  describe(stage, share, marked, need) {
    const { costs } = this.view;
    if (!costs.timed) return { marked: marked ? "; the largest" : "", timed: "" };
    const moves = [stage.receive && `receives ${formatSeconds(stage.receive)}`, stage.send && `sends ${formatSeconds(stage.send)}`];
    const parts = [`computes ${formatSeconds(stage.work)}`, ...moves.filter(Boolean)].join(", ");
    const together = costs.state.overlap ? " side by side" : "";
    const lines = [
      `${formatSeconds(stage.cost)} per micro-batch (${parts}${together})`,
      marked ? "the bottleneck" : `${percent(share)} of the bottleneck's time`,
      ...(need ? [`needs ${need} of memory`] : []),
      costs.state.device,
    ];
    return { marked: "", timed: `\n${lines.join("\n")}` };
  }

  /** Join each stage's span of the ribbon with its box; wrapped boxes get the stage's number there instead. */
  paintCurtains(xs, corners) {
    const { rows, box } = this.grid;
    const { colours, ruler } = this.view;
    const count = corners.length;
    const shapes = keep(this.curtains, count * 2, (i) => (i % 2 ? svg("text") : svg("path")));
    for (let index = 0; index < count; index++) {
      const [left, right] = [xs[index] + 1, xs[index + 1] - 1];
      const [shape, text] = [shapes[2 * index], shapes[2 * index + 1]];
      const [x] = corners[index];
      const middle = this.top / 2;
      const curve = (a, b) => `C${a} ${middle} ${b} ${middle} ${b} ${this.top}`;
      const back = (a, b) => `C${a} ${middle} ${b} ${middle} ${b} 0`;
      const one = rows === 1;
      set(shape, { d: one ? `M${left} 0${curve(left, x)}H${x + box}${back(x + box, right)}Z` : "" });
      shape.style.fill = colours[index % colours.length];
      const fits = !one && right - left >= ruler.width(`${index}`, 11) + 2;
      set(text, { x: (left + right) / 2, y: 11, text: fits ? `${index}` : "" });
    }
  }

  /** What crosses each boundary, on the way into the next box; wrapped rows also show where the input enters. */
  paintArrows(cuts, corners) {
    const { box, gap, rows } = this.grid;
    const first = rows === 1 ? 1 : 0;
    const lines = [];
    const heads = [];
    const labels = keep(this.labels, corners.length - first, () => svg("text"));
    for (let index = first; index < corners.length; index++) {
      const [x, y] = corners[index];
      const start = index && corners[index - 1][1] === y ? corners[index - 1][0] + box : x - gap;
      const middle = y + this.boxHeight / 2 + 8;
      lines.push(`M${start + 4} ${middle}H${x - 4}`);
      heads.push(`M${x - 8} ${middle - 4}L${x - 2} ${middle}L${x - 8} ${middle + 4}Z`);
      const text = index ? formatBytes(this.view.model.cut(cuts[index - 1]).bytes) : "input";
      set(labels[index - first], { x: (start + x) / 2, y: middle - 7, text });
    }
    set(this.arrows, { d: lines.join("") });
    set(this.heads, { d: heads.join("") });
  }
}

class Links {
  constructor(view) {
    this.view = view;
    this.picture = svg("svg", { class: "pl-links", "aria-hidden": "true" });
    this.list = el("div", { class: "pl-links-text" });
    this.node = el("div", { class: "pl-links-pane" }, this.picture, this.list);
  }

  paint(cuts, stages, corners, grid, width) {
    const found = links(this.view.model, cuts, stages);
    const shown = found.slice(0, found.length > MAX_LANES ? MAX_LANES - 1 : MAX_LANES);
    const more = found.length > shown.length ? [`and ${found.length - shown.length} more links between stages`] : [];
    const drawn = grid.rows === 1;
    const texts = [...(drawn ? [] : shown.map((link) => `${linkText(link)} (stages ${listed(link.ends)})`)), ...more];
    const lines = keep(this.list, texts.length, () => el("div"));
    for (const [index, text] of texts.entries()) {
      lines[index].textContent = this.view.ruler.fit(text, width);
      lines[index].title = text;
    }
    const height = drawn ? shown.length * LANE_HEIGHT : 0;
    this.picture.style.display = height ? "" : "none";
    set(this.picture, { width, height, viewBox: `0 0 ${width} ${height || 1}` });
    const lanes = keep(this.picture, drawn ? shown.length : 0, () => {
      const lane = svg("g");
      lane.append(svg("path"), svg("text"), svg("title"));
      return lane;
    });
    for (const [index, lane] of [...lanes].entries()) this.paintLane(lane, index, shown[index], corners, grid, width);
  }

  /** A bracket from the first to the last stage it joins, with its text in the middle, else beside it. */
  paintLane(lane, index, link, corners, { box }, width) {
    const { ruler } = this.view;
    const [path, text, title] = lane.children;
    const ends = link.ends.map((stage) => corners[stage][0] + box / 2);
    const [left, right] = [ends[0], ends.at(-1)];
    const y = index * LANE_HEIGHT + 12;
    const full = linkText(link);
    const wide = ruler.width(full) + 12;
    // Where there is room: in the bracket, right of it, left of it; if nowhere, as much as fits in the largest.
    const rooms = [right - left - 16, width - right, left];
    const room = rooms.some((size) => size >= wide) ? rooms.findIndex((size) => size >= wide) : rooms.indexOf(Math.max(...rooms));
    const label = ruler.fit(full, rooms[room] - 12);
    const half = ruler.width(label) / 2 + 6;
    const middle = [(left + right) / 2, right + half, left - half][room];
    const inText = (x) => x > middle - half && x < middle + half;
    const up = ends.map((x) => `M${x} ${y - 9}V${inText(x) ? y - 6 : y}`).join("");
    const line = room ? `M${left} ${y}H${right}` : `M${left} ${y}H${middle - half}M${middle + half} ${y}H${right}`;
    set(path, { d: up + line });
    set(lane, { class: `pl-link pl-${link.kind}` });
    set(text, { x: middle, y: y + 4, text: label });
    set(title, { text: full });
  }
}

const listed = (ends) => (ends.length > 4 ? `${ends.slice(0, 3).join(", ")}…` : ends.join(" and "));

class TimelinePane {
  constructor(view) {
    this.view = view;
    this.title = el("span");
    this.stale = el("span", { class: "pl-stale" });
    this.key = el("span", { class: "pl-key" });
    this.picture = svg("svg", { class: "pl-timeline-svg", role: "img" });
    const head = el("div", { class: "pl-timeline-head" }, this.title, this.stale, this.key);
    this.node = el("section", { class: "pl-timeline", "aria-label": "Measured timeline", hidden: true }, head);
    this.node.append(this.picture);
  }

  /** Draw the report; a drag afterwards only fades it. */
  layout(report, width) {
    this.node.hidden = !report;
    if (!report) return;
    const { ruler } = this.view;
    const left = Math.ceil(ruler.width("rank 88")) + 8;
    const right = Math.ceil(ruler.width("idle 100%")) + 10;
    const row = report.rows.length > 8 ? 18 : 22;
    const height = report.rows.length * row + 20;
    const span = width - left - right;
    const { predicted } = report;
    const end = Math.max(report.makespan_s, predicted?.makespan_s ?? 0);
    const x = (time) => left + (end ? (span * time) / end : 0);
    this.title.textContent =
      `Measured: step ${formatSeconds(report.step_s)}${predicted ? ` (${formatSeconds(predicted.makespan_s)} predicted)` : ""}, ` +
      `idle ${percent(report.idle)}, ${plural(report.num_microbatches, "micro-batch")}`;
    this.key.textContent = `${predicted ? "outlined: predicted · " : ""}hatched: waiting · grey: moving data`;
    set(this.picture, {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "aria-label":
        `${this.title.textContent}. ` + report.rank_idle.map((idle, rank) => `Rank ${rank} idle ${percent(idle)}.`).join(" "),
    });
    const hatch = svg("pattern", {
      id: `${this.view.id}-wait`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
    });
    hatch.append(svg("path", { class: "pl-hatch", d: "M0 0V6" }));
    const parts = [hatch];
    for (const [rank, events] of report.rows.entries()) {
      parts.push(...this.row(rank, events, predicted?.rows[rank] ?? [], x, rank * row, row - 4));
      parts.push(svg("text", { x: 0, y: rank * row + row / 2 + 2, text: `rank ${rank}` }));
      const idle = svg("text", { x: width, y: rank * row + row / 2 + 2, "text-anchor": "end" });
      parts.push(set(idle, { text: `idle ${percent(report.rank_idle[rank])}` }));
    }
    this.picture.replaceChildren(...parts, ...this.axis(end, x, report.rows.length * row, width - right));
  }

  row(rank, events, outlines, x, y, height) {
    const { ruler, colours, id } = this.view;
    const end = this.view.report.makespan_s;
    const ground = { x: x(0), y, width: Math.max(0, x(end) - x(0)), height };
    const parts = [
      svg("rect", { class: "pl-ground", ...ground }),
      svg("rect", { ...ground, fill: `url(#${id}-wait)` }),
    ];
    const numbers = [];
    for (const [kind, stage, microbatch, from, to] of events) {
      const span = Math.max(0.5, x(to) - x(from));
      const moving = kind === "send" || kind === "recv";
      const box = svg("rect", { class: moving ? "pl-moving" : "pl-work", x: x(from), width: span, rx: moving ? 0 : 2 });
      set(box, moving ? { y: y + height / 2 - 2, height: 4 } : { y, height });
      if (!moving) box.style.fill = colours[stage % colours.length];
      const does = { F: "forward", B: "backward", send: "sends", recv: "receives" }[kind] ?? kind;
      const title = `rank ${rank}, stage ${stage}, micro-batch ${microbatch}: ${does}, ${formatSeconds(to - from)}`;
      box.append(svg("title", { text: title }));
      parts.push(box);
      if (!moving && ruler.width(`${microbatch}`) + 4 <= span) {
        const place = { x: x(from) + span / 2, y: y + height / 2 + 4, "text-anchor": "middle" };
        const number = svg("text", { class: "pl-on-colour", ...place, text: `${microbatch}` });
        number.style.stroke = colours[stage % colours.length];
        numbers.push(number);
      }
    }
    for (const [from, to] of outlines) {
      const place = { x: x(from), y: y + 0.5, width: Math.max(0.5, x(to) - x(from)), height: height - 1 };
      parts.push(svg("rect", { class: "pl-predicted", ...place }));
    }
    return [...parts, ...numbers]; // no outline strikes a number through
  }

  axis(end, x, y, right) {
    const parts = [];
    const { ruler } = this.view;
    const step = niceStep(end / Math.max(2, (right - x(0)) / 130));
    for (let index = 0; step && index * step <= end * 1.0001; index++) {
      const time = index * step;
      const text = tickText(time, step, end);
      const half = ruler.width(text) / 2;
      parts.push(svg("path", { class: "pl-axis", d: `M${x(time)} ${y - 2}v4` }));
      if (x(time) + half <= right + half) {
        const place = { x: Math.min(x(time), right + 4 - half), y: y + 15, "text-anchor": "middle" };
        parts.push(svg("text", { ...place, text }));
      }
    }
    return parts;
  }

  paint(cuts) {
    const { report } = this.view;
    if (!report) return;
    const stale = report.cuts.join() !== cuts.join();
    this.node.classList.toggle("pl-faded", stale);
    this.stale.textContent = stale ? "measured for the previous split" : "";
  }
}

function niceStep(least) {
  if (!(least > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.9999);
}

/** The time at a tick, all ticks in one unit and with as many decimals as their step needs. */
function tickText(time, step, end) {
  if (!time) return "0";
  const [factor, unit] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([factor]) => end >= factor) ?? [1e-6, "µs"];
  const digits = Math.max(0, -Math.floor(Math.log10(step / factor) + 1e-9));
  return `${fixed(time / factor, digits)} ${unit}`;
}

class Controls {
  constructor(view) {
    this.view = view;
    this.stages = this.stepper("Stages", "stage", (change) => view.changeStages(change));
    this.microbatches = this.stepper("Micro-batches", "micro-batch", (change) => view.changeMicrobatches(change));
    this.uniform = button("Uniform", { title: "The same number of blocks in each stage" });
    this.equal = button("Equal size", { title: "PiPPy's greedy policy: equal parameters, the last stage takes the rest" });
    this.threshold = button("Threshold…", { "aria-expanded": "false", title: "At most so many parameters per stage" });
    this.optimal = button("Optimal");
    if (!view.traits.get("_connected")) set(this.threshold, { disabled: true, title: "A saved page cannot answer this" });
    this.level = el("select", { ...OWN_KEYS, "aria-label": "Cut between" });
    this.run = button("Run", { class: "pl-run" });
    this.refusal = el("span", { class: "pl-refusal" });
    this.form = this.makeForm();
    for (const level of LEVELS) {
      const none = !view.model.byLevel[level].length;
      this.level.append(el("option", { value: level, text: `${level}s`, disabled: none }));
    }
    const policies = el("div", { class: "pl-segments", role: "group", "aria-label": "Split" });
    policies.append(this.uniform, this.equal, this.threshold, this.optimal);
    const field = (label, ...nodes) => el("div", { class: "pl-field" }, el("span", { class: "pl-label", text: label }), ...nodes);
    this.node = el(
      "div",
      { class: "pl-controls" },
      field("Stages", this.stages.node),
      field("Micro-batches", this.microbatches.node),
      field("Split", policies),
      this.run,
      this.refusal,
    );
  }

  stepper(label, noun, change) {
    const less = button("−", { "aria-label": `Fewer ${noun}${noun.endsWith("ch") ? "es" : "s"}` });
    const more = button("+", { "aria-label": `More ${noun}${noun.endsWith("ch") ? "es" : "s"}` });
    const output = el("output", { "aria-label": label });
    less.onclick = () => change(-1);
    more.onclick = () => change(1);
    return { less, more, output, node: el("div", { class: "pl-stepper", role: "group", "aria-label": label }, less, output, more) };
  }

  /** "at most [41.2] M parameters per stage → 4 stages [Apply]" */
  makeForm() {
    const input = el("input", { type: "number", min: "0", step: "any", "aria-label": "Million parameters per stage", ...OWN_KEYS });
    const answer = el("span", { class: "pl-answer", "aria-live": "polite" });
    const apply = button("Apply", { disabled: true });
    const form = el("div", { class: "pl-threshold", hidden: true });
    form.append(el("span", { text: "At most" }), input, el("span", { text: "M parameters per stage" }), answer, apply);
    input.oninput = () => this.view.askThreshold(Number(input.value) * 1e6);
    // In braces: a handler that returns false would take every other key from the field.
    input.onkeydown = (event) => {
      if (event.key === "Enter" && !apply.disabled) apply.click();
    };
    apply.onclick = () => this.view.applyThreshold();
    return Object.assign(form, { input, answer, apply });
  }

  paint(cuts) {
    const { view } = this;
    const count = cuts.length + 1;
    const running = view.run.phase === "running" || view.pending;
    this.stages.output.textContent = `${count}`;
    this.stages.less.disabled = count <= 1;
    this.stages.more.disabled = count >= view.mostStages;
    this.microbatches.output.textContent = `${view.numMicrobatches}`;
    // A saved page holds the times of one number of micro-batches.
    const still = view.costs.timed && !view.traits.get("_connected");
    this.microbatches.less.disabled = still || view.numMicrobatches <= 1;
    this.microbatches.more.disabled = still || view.numMicrobatches >= view.data.batch_size;
    const same = (policy) => `${Array.isArray(policy[count]) && policy[count].join() === cuts.join()}`;
    set(this.uniform, { "aria-pressed": same(view.presets.uniform) });
    set(this.equal, { "aria-pressed": same(view.presets.equal_size) });
    const title = `The least ${view.costs.timed ? "time of the slowest stage" : "parameters of the largest stage"}: no split between blocks has less`;
    set(this.optimal, { "aria-pressed": same(view.presets.optimal), title });
    set(this.threshold, { "aria-expanded": `${!this.form.hidden}` });
    this.level.value = view.level;
    this.run.textContent = running ? "Cancel" : "Run";
    this.run.classList.toggle("pl-cancel", running);
    this.run.disabled = Boolean(view.refusal) || (running && view.run.cancellable === false);
    this.run.title = running && view.run.cancellable === false ? "Started by a cell: interrupt the kernel to stop it" : "";
    this.refusal.textContent = view.refusal;
    this.refusal.hidden = !view.refusal;
  }
}

/** A policy's cuts for so many stages; undefined where it refuses. */
const cutsOf = (policy, count) => (Array.isArray(policy[count]) ? policy[count] : undefined);

const HELP = [
  ["Drag ◆", "move a split point; every number follows"],
  ["← →", "on a divider: one cut. Shift: a block. Page Up, Page Down: five cuts. Home, End: as far as it goes"],
  ["Esc", "give up a drag"],
  ["Ribbon", "the model from input to output; a piece is as wide as its parameters"],
  ["Boxes", "one per stage; the number on an arrow is what crosses that boundary, per batch"],
  ["Times", "of one micro-batch; a box's bar is its share of the bottleneck's time; hatched: more than the device holds"],
  ["Uniform", "the same number of blocks in each stage"],
  ["Equal size", "PiPPy's greedy policy: a stage is full at total ÷ stages, the last one takes the rest"],
  ["Threshold", "PiPPy's other one: at most so many parameters per stage, as many stages as it takes"],
  ["Optimal", "the dearest stage is as cheap as can be, by time where there are times; no split between blocks is better"],
  ["Run", "start one process per stage and measure; the timeline shows who waits for whom"],
];

// --- render -----------------------------------------------------------------------------------------------------

class View {
  constructor(model, el) {
    this.traits = model;
    this.host = el;
    this.data = model.get("_data");
    this.colours = model.get("_colours");
    this.refusal = model.get("_run_refusal");
    this.model = new Model(this.data);
    this.id = `pl-${Math.random().toString(36).slice(2, 10)}`;
    this.ruler = new Ruler();
    this.ruler.use(el);
    this.level = LEVELS.find((level) => this.model.byLevel[level].length >= Math.max(1, this.traits.get("cuts").length)) ?? "op";
    this.cuts = [...model.get("cuts")];
    this.drag = null;
    this.byKeys = true;
    this.note = null;
    this.pending = false;
    this.listening = new AbortController();
    this.readTraits();
    this.readCosts();
    this.dismissed = null;
    this.build();
  }

  get numMicrobatches() {
    return this.traits.get("num_microbatches");
  }

  readTraits() {
    this.run = this.traits.get("_run_state");
    this.report = this.traits.get("_report_state");
  }

  readCosts() {
    this.presets = this.traits.get("_presets");
    this.mostStages = Math.max(...Object.values(this.presets).map((policy) => policy.length - 1));
    this.costs = new Costs(this.model, this.traits.get("_costs"));
  }

  build() {
    const { data } = this;
    this.help = el("dl", { class: "pl-help", id: `${this.id}-help`, hidden: true });
    for (const [term, text] of HELP) this.help.append(el("dt", { text: term }), el("dd", { text }));
    this.helpButton = button("?", {
      class: "pl-icon", "aria-label": "Help", "aria-expanded": "false", "aria-controls": this.help.id,
    });
    const name = el("strong", { class: "pl-name", text: data.model, title: data.model });
    const title = el("div", { class: "pl-title" }, name, el("span", { class: "pl-about", text: data.about }), this.helpButton);
    this.verdictText = el("span");
    this.verdictAction = button("", { class: "pl-action", hidden: true });
    this.details = el("details", { class: "pl-details", hidden: true });
    this.details.append(el("summary", { text: "Details", ...OWN_KEYS }), el("pre"));
    this.verdict = el("div", { class: "pl-verdict", "aria-live": "polite" }, this.verdictText, this.verdictAction);
    this.bar = el("div", { class: "pl-progress", hidden: true }, el("div"));
    this.ribbon = new Ribbon(this);
    this.stages = new Stages(this);
    this.links = new Links(this);
    this.timeline = new TimelinePane(this);
    this.controls = new Controls(this);
    this.hint = el("div", { class: "pl-hint" });
    const width = el("span", { text: data.weights.length ? "width: parameters" : "" });
    if (data.cuts.positions.length) {
      this.hint.append(el("label", { text: "Drag ◆ to cut between " }, this.controls.level), width);
    } else this.hint.append(el("span", { text: "There is no place where this model can be cut." }), width);
    this.root = el("div", { class: "pl-explorer", role: "group", "aria-label": `Pipeline explorer: ${data.model}` });
    this.root.append(title, this.help, this.verdict, this.bar, this.details, this.hint, this.ribbon.node, this.stages.node);
    this.rests = el("div", { class: "pl-rests" });
    this.root.append(this.links.node, this.timeline.node, this.controls.node, this.controls.form, this.rests);
    this.host.classList.add("pl-host");
    this.host.replaceChildren(this.root);
    this.wire();
  }

  wire() {
    const { controls, traits } = this;
    const { signal } = this.listening;
    const on = (node, event, listener) => node.addEventListener(event, listener, { signal });
    on(this.helpButton, "click", () => {
      this.help.hidden = !this.help.hidden;
      set(this.helpButton, { "aria-expanded": `${!this.help.hidden}` });
    });
    // The tip of a focused divider stays for the keyboard, and goes with the mouse.
    for (const [event, byKeys] of [["keydown", true], ["pointerdown", false]]) {
      this.root.addEventListener(event, () => { this.byKeys = byKeys; }, { signal, capture: true });
    }
    on(this.hint, "pointerenter", () => !this.drag && this.ribbon.showTip(this.cuts, null));
    on(controls.uniform, "click", () => this.usePolicy("uniform", this.cuts.length + 1));
    on(controls.equal, "click", () => this.usePolicy("equal_size", this.cuts.length + 1));
    on(controls.optimal, "click", () => this.usePolicy("optimal", this.cuts.length + 1));
    on(controls.threshold, "click", () => this.toggleThreshold());
    on(controls.level, "change", () => {
      this.level = controls.level.value;
      this.layout();
    });
    on(controls.run, "click", () => this.pressRun());
    // A traceback ends with what happened.
    on(this.details, "toggle", () => { this.details.lastChild.scrollTop = this.details.lastChild.scrollHeight; });
    on(this.verdictAction, "click", () => this.action?.run());
    this.listeners = {
      "change:cuts": () => {
        if (this.drag) return;
        this.cuts = [...traits.get("cuts")];
        this.before = null;
        this.paintOrLayout();
      },
      "change:num_microbatches": () => this.paint(),
      "change:_costs": () => {
        this.readCosts();
        this.layout();
      },
      "change:_run_state": () => {
        this.pending = false;
        this.readTraits();
        this.note = null;
        this.dismissed = null;
        this.paint();
      },
      "change:_report_state": () => {
        this.readTraits();
        this.layout();
      },
      "msg:custom": (message) => this.hear(message),
    };
    for (const [event, listener] of Object.entries(this.listeners)) traits.on(event, listener);
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 50 && width !== this.width) this.layout(width);
    });
    this.observer.observe(this.ribbon.node);
  }

  destroy() {
    this.listening.abort();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    for (const timer of [this.timer, this.answerTimer, this.thresholdTimer]) clearTimeout(timer);
    for (const [event, listener] of Object.entries(this.listeners)) this.traits.off(event, listener);
  }

  // --- drawing

  layout(width = this.width ?? 872) {
    this.width = width;
    this.root.classList.toggle("pl-slim", width < 800);
    this.ruler.use(this.host);
    this.ribbon.layout(width);
    this.stages.layout(this.cuts.length + 1, width);
    this.timeline.layout(this.report, width);
    this.paint();
  }

  paintOrLayout() {
    if (this.stages.boxes.childElementCount === this.cuts.length + 1) this.paint();
    else this.layout();
  }

  paint() {
    const { cuts } = this;
    const stages = this.costs.stages(cuts);
    const { xs } = this.ribbon.paint(cuts, stages, this.drag?.index ?? null);
    const corners = this.stages.paint(cuts, stages, xs);
    this.links.paint(cuts, stages, corners, this.stages.grid, this.width);
    this.timeline.paint(cuts);
    this.controls.paint(cuts);
    this.paintVerdict(stages);
    this.paintRests();
  }

  /** What times rest on; faded while those for another number of micro-batches are on their way. */
  paintRests() {
    const { device, rows, num_microbatches, refusal } = this.costs.state;
    this.root.classList.toggle("pl-late", this.costs.timed && num_microbatches !== this.numMicrobatches);
    const times = device && `Times: ${device}; per micro-batch of ${plural(rows, "row")}, transfers included.`;
    this.rests.textContent = refusal ? `No times: ${refusal}` : (times ?? "");
    this.rests.hidden = !this.rests.textContent;
  }

  /** One line: progress, else a refusal, else how the run went, else the split's own verdict. */
  paintVerdict(stages) {
    const { run, note } = this;
    const running = run.phase === "running";
    const ended = ["done", "failed", "cancelled", "refused"].includes(run.phase) && this.dismissed !== run;
    let kind = "plan";
    const optimum = stages.length > 1 ? this.costs.state.optima[stages.length] : null;
    let text = this.costs.verdict(stages, optimum);
    if (running || this.pending) [kind, text] = ["progress", running ? run.text : "Asking the kernel…"];
    if (!running && ended) [kind, text] = [run.phase, run.text];
    if (note) [kind, text] = [note.kind, note.text];
    if (this.verdictText.textContent !== text) this.verdictText.textContent = text;
    set(this.verdict, { "data-kind": kind, "aria-busy": `${this.drag !== null}` });
    this.action = note?.action ?? (kind === "plan" ? this.optimalAction(stages, optimum) : undefined);
    this.verdictAction.hidden = !this.action;
    this.verdictAction.textContent = this.action?.text ?? "";
    this.bar.hidden = !running;
    this.bar.classList.toggle("pl-unknown", run.fraction === null);
    this.bar.firstChild.style.width = run.fraction === null ? "" : `${Math.round(100 * (run.fraction ?? 0))}%`;
    this.details.hidden = kind !== "failed" || !run.details;
    this.details.lastChild.textContent = run.details ?? "";
  }

  /** A way to the optimum, where there is a better one, and back. */
  optimalAction(stages, optimum) {
    if (this.before) return { text: "Undo", run: () => this.undo() };
    if (!optimum) return undefined;
    const better = this.costs.tooLarge(stages).length || dearest(stages).cost > optimum * (1 + CLOSE);
    return better ? { text: "Show optimal", run: () => this.showOptimal() } : undefined;
  }

  showOptimal() {
    const before = this.cuts;
    this.usePolicy("optimal", before.length + 1);
    this.before = before;
    this.paint();
  }

  undo() {
    const { before } = this;
    this.changed();
    this.commit(before);
  }

  // --- dividers

  makeHandle(index) {
    const handle = el("div", { class: "pl-handle", role: "slider", tabindex: "0", "aria-orientation": "horizontal", ...OWN_KEYS });
    handle.append(el("div", { class: "pl-hit" }), el("div", { class: "pl-line" }), el("div", { class: "pl-grip" }));
    const on = (event, listener) => handle.addEventListener(event, listener, { signal: this.listening.signal });
    on("pointerdown", (event) => this.startDrag(event, handle, index));
    on("pointermove", (event) => this.moveDrag(event, index));
    on("pointerup", () => this.endDrag(true));
    on("pointercancel", () => this.endDrag(false));
    on("lostpointercapture", () => this.endDrag(true));
    on("keydown", (event) => this.pressKey(event, index));
    on("focus", () => this.ribbon.showTip(this.cuts, index));
    on("blur", () => this.ribbon.showTip(this.cuts, null));
    on("pointerenter", () => !this.drag && this.ribbon.showTip(this.cuts, index));
    on("pointerleave", () => !this.drag && !(this.byKeys && document.activeElement === handle) && this.ribbon.showTip(this.cuts, null));
    return handle;
  }

  startDrag(event, handle, index) {
    if (event.button !== 0) return;
    event.preventDefault();
    handle.focus();
    handle.setPointerCapture(event.pointerId);
    const box = this.ribbon.node.getBoundingClientRect();
    const scale = box.width / this.width || 1;
    const grab = (event.clientX - box.left) / scale - this.ribbon.x(this.cuts[index]);
    this.drag = { index, handle, pointer: event.pointerId, before: [...this.cuts], left: box.left + grab * scale, scale };
    this.requestPaint();
  }

  moveDrag(event, index) {
    if (this.drag?.index !== index) return;
    this.drag.x = (event.clientX - this.drag.left) / this.drag.scale;
    this.requestPaint();
  }

  requestPaint() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      if (!this.drag) return;
      const { index, x } = this.drag;
      const found = x === undefined ? undefined : this.positionAt(x, index);
      if (found !== undefined && found !== this.cuts[index]) {
        this.cuts = this.cuts.with(index, found);
        this.changed();
        this.sendSoon();
        this.paint();
      }
      this.ribbon.node.classList.add("pl-dragging");
      this.ribbon.showTip(this.cuts, index);
    });
  }

  /** The legal cut nearest to a place on the ribbon, between the neighbours. */
  positionAt(x, index) {
    const { model, ribbon } = this;
    const above = index ? this.cuts[index - 1] : 0;
    const below = index < this.cuts.length - 1 ? this.cuts[index + 1] : model.numOps;
    const block = Math.min(Math.max(firstAtLeast(ribbon.edges, x) - 1, 0), ribbon.stops.length - 1);
    const [, start, stop] = this.data.blocks[block];
    const share = (x - ribbon.edges[block]) / (ribbon.edges[block + 1] - ribbon.edges[block]);
    return model.nearest(this.level, start + share * (stop - start), above, below);
  }

  endDrag(commit) {
    if (!this.drag) return;
    const { before, handle, pointer } = this.drag;
    this.drag = null;
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    if (handle.hasPointerCapture(pointer)) handle.releasePointerCapture(pointer);
    this.commit(commit ? this.cuts : before);
  }

  pressKey(event, index) {
    if (event.key === "Escape" && this.drag) {
      event.preventDefault();
      event.stopPropagation();
      this.endDrag(false);
      return;
    }
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey || this.drag) return;
    event.preventDefault();
    event.stopPropagation();
    const above = index ? this.cuts[index - 1] : 0;
    const below = index < this.cuts.length - 1 ? this.cuts[index + 1] : this.model.numOps;
    const level = event.shiftKey && this.model.byLevel.block.length ? "block" : this.level;
    const found = this.model.step(level, this.cuts[index], step, above, below);
    if (found === this.cuts[index]) return;
    this.changed();
    this.commit(this.cuts.with(index, found));
    this.ribbon.showTip(this.cuts, index);
  }

  // --- telling Python

  /** The user moved the split: refusals and the last run's sentence no longer speak of it. */
  changed() {
    this.note = null;
    this.before = null;
    if (this.run.phase !== "running") this.dismissed = this.run;
  }

  sendSoon() {
    if (this.timer) return;
    const send = () => {
      this.timer = undefined;
      if (this.sent === this.cuts) return;
      this.sent = this.cuts;
      this.traits.set("cuts", this.cuts);
      this.traits.save_changes();
      this.timer = setTimeout(send, THROTTLE_MS);
    };
    send();
  }

  commit(cuts) {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.cuts = [...cuts];
    this.traits.set("cuts", this.cuts);
    this.traits.set("value", this.cuts);
    this.traits.set("num_stages", this.cuts.length + 1);
    this.traits.save_changes();
    this.paintOrLayout();
  }

  usePolicy(name, count) {
    const policy = this.presets[name];
    const cuts = policy[count] ?? `More than ${this.mostStages} stages are set from code.`;
    this.changed();
    if (Array.isArray(cuts)) {
      this.policy = name;
      this.commit(cuts);
      if (cuts.length + 1 < count) {
        this.note = { kind: "refused", text: `Equal size leaves the last of ${plural(count, "stage")} empty: ${cuts.length + 1} are shown.` };
      }
    } else {
      const below = policy.slice(0, count).findLastIndex(Array.isArray);
      // Memory may want more stages instead.
      const works = below > 0 ? below : policy.findIndex((found, n) => n > count && Array.isArray(found));
      const action = works > 0 ? { text: `Use ${works}`, run: () => this.usePolicy(name, works) } : undefined;
      this.note = { kind: "refused", text: cuts, action };
    }
    this.paint();
  }

  /** Fewer or more stages, by the policy that is pressed, else the one used last, else uniform. */
  changeStages(change) {
    const count = this.cuts.length + 1;
    const joined = this.cuts.join();
    const pressed = Object.keys(this.presets).filter((name) => cutsOf(this.presets[name], count)?.join() === joined);
    const policy = pressed.length && !pressed.includes(this.policy) ? pressed[0] : this.policy;
    this.usePolicy(policy ?? "uniform", count + change);
  }

  changeMicrobatches(change) {
    this.traits.set("num_microbatches", this.numMicrobatches + change);
    this.traits.save_changes();
    this.paint();
  }

  toggleThreshold() {
    const { form } = this.controls;
    form.hidden = !form.hidden;
    if (!form.hidden) {
      form.input.focus();
      this.askThreshold(null);
    }
    this.controls.paint(this.cuts);
  }

  /** Ask Python for the stages a threshold needs; null asks for the smallest that keeps the number of stages. */
  askThreshold(maxParams) {
    clearTimeout(this.thresholdTimer);
    const ask = () => this.send({ type: "threshold", max_params: maxParams, num_stages: this.cuts.length + 1 });
    this.thresholdTimer = setTimeout(ask, maxParams === null ? 0 : 200);
  }

  hear(message) {
    if (message.type !== "threshold") return;
    const { form } = this.controls;
    if (message.suggested) form.input.value = `${message.suggested / 1e6}`;
    const count = (message.cuts?.length ?? 0) + 1;
    const drawn = count <= this.mostStages ? "" : `; up to ${this.mostStages} can be applied here`;
    form.answer.textContent = message.error ?? `→ ${plural(count, "stage")}${drawn}${message.note}`;
    form.apply.disabled = Boolean(message.error || drawn);
    this.thresholdCuts = message.cuts;
  }

  applyThreshold() {
    this.changed();
    this.commit(this.thresholdCuts);
  }

  /** Send Python a message; false, and Run is off, if the kernel that made this explorer is gone. */
  send(message) {
    try {
      this.traits.send(message);
    } catch {
      this.refusal = "Not connected: dragging works, Run does not. Run the cell again.";
      this.pending = false;
      if (this.run.phase === "running") this.run = { phase: "idle" };
      this.paint();
      return false;
    }
    return true;
  }

  pressRun() {
    if (this.run.phase === "running" || this.pending) {
      this.send({ type: "cancel" });
      return;
    }
    if (!this.send({ type: "run" })) return;
    this.pending = true;
    this.note = null;
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => {
      if (!this.pending) return;
      this.pending = false;
      this.note = { kind: "failed", text: "The kernel does not answer: it is busy or gone. Dragging works, Run does not yet." };
      this.paint();
    }, NO_ANSWER_MS);
    this.paint();
  }
}

function render({ model, el: host }) {
  const view = new View(model, host);
  view.layout();
  view.root.dataset.ready = "1";
  return () => view.destroy();
}

export default { render };
