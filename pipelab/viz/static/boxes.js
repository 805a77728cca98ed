// One box per stage under its piece of the ribbon, and what crosses from box to box.

import { formatBytes, formatCount, formatNeed, formatSeconds, percent } from "./numbers.js";
import { dearest } from "./costs.js";
import { lastPart } from "./model.js";
import { el, keep, set, svg } from "./dom.js";
import { MARKS, boxGrid, placeBoxes } from "./layout.js";

const BOX_HEIGHT = { plain: 68, timed: 86 };

export class StageBoxes {
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

  layout(width) {
    const count = this.view.cuts.length + 1;
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

  paint() {
    const { cuts, stages, ribbon } = this.view;
    const { xs } = ribbon;
    const corners = this.corners(xs);
    this.placed = corners;
    const most = dearest(stages);
    const uneven = stages.some((stage) => stage.cost < most.cost);
    for (const [index, stage] of stages.entries()) {
      const share = most.cost ? stage.cost / most.cost : 0;
      this.paintBox(this.boxes.children[index], stage, corners[index], uneven && stage === most, share);
    }
    this.paintCurtains(xs, corners);
    this.paintArrows(cuts, corners);
  }

  paintBox(node, stage, [x, y], marked, share) {
    const { colours, costs, model, ruler } = this.view;
    const { narrow, named, box } = this.grid;
    const [name, mark, time, params, bytes, holds, bar] = node.children;
    const labels = model.labels(stage);
    const need = costs.tooLarge([stage]).length ? formatNeed(stage.needs, costs.capacity) : "";
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
      const text = index ? formatBytes(this.view.costs.cutBytes(cuts[index - 1])) : "input";
      set(labels[index - first], { x: (start + x) / 2, y: middle - 7, text });
    }
    set(this.arrows, { d: lines.join("") });
    set(this.heads, { d: heads.join("") });
  }
}
