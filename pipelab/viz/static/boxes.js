// One box per stage under its piece of the ribbon, and what crosses from box to box.

import { formatBytes, formatCount, formatNeed, formatSeconds, percent, wholeBytes } from "./numbers.js";
import { dearest } from "./costs.js";
import { endParts, lastPart } from "./model.js";
import { OWN_KEYS, el, keep, set, svg } from "./dom.js";
import { MARKS, boxGrid, boxHeight, placeBoxes } from "./layout.js";
import { badgeTexts, links } from "./links.js";

const KINDS = ["weights", "gradients", "caches", "activations", "reserve"];

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
    this.node = el("div", { class: "pl-stages" }, this.lines, this.boxes, view.card.node);
  }

  layout(width) {
    const count = this.view.cuts.length + 1;
    this.width = width;
    const { timed, capacity } = this.view.costs;
    this.grid = boxGrid(count, width, this.view.ruler, timed);
    const { rows, box, narrow } = this.grid;
    this.boxHeight = boxHeight({ timed, narrow, capacity });
    this.top = rows === 1 ? 22 : 20;
    this.step = this.boxHeight + 14;
    this.height = this.top + (rows - 1) * this.step + this.boxHeight;
    if (this.firstArrow !== rows) this.labels.replaceChildren();
    this.firstArrow = rows;
    set(this.lines, { width, height: this.height, viewBox: `0 0 ${width} ${this.height}` });
    this.node.style.height = `${this.height}px`;
    this.node.classList.toggle("pl-narrow", narrow);
    this.node.classList.toggle("pl-timed", timed);
    this.node.classList.toggle("pl-capped", capacity !== null);
    for (const node of keep(this.boxes, count, (index) => this.makeBox(index))) {
      node.style.width = `${box}px`;
      node.style.height = `${this.boxHeight}px`;
      delete node.dataset.drawn;
    }
  }

  makeBox(index) {
    const names = ["name", "mark", "time", "params", "bar", "bytes", "fill", "holds", "badge"];
    const parts = names.map((name) => el("span", { class: `pl-box-${name}` }));
    parts[6].append(...KINDS.map((kind) => el("span", { class: `pl-${kind}` })));
    const node = el("div", { class: "pl-box", role: "listitem", tabindex: "0", ...OWN_KEYS }, ...parts);
    this.view.card.tellOf(node, "stage", index);
    return node;
  }

  /** The bytes on an arrow; those of a cut tell its story. */
  makeLabel(cut) {
    const label = svg("text");
    if (cut >= 0) this.view.card.tellUnder(label, "cut", cut);
    return label;
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
    const { cuts, costs, model, stages, ribbon } = this.view;
    const { xs } = ribbon;
    const corners = this.corners(xs);
    this.placed = corners;
    this.links = links(model, cuts, stages, costs.rows);
    const most = dearest(stages);
    const uneven = stages.some((stage) => stage.cost < most.cost);
    for (const [index, stage] of stages.entries()) {
      const [x, y] = corners[index];
      const node = this.boxes.children[index];
      node.style.transform = `translate(${x.toFixed(1)}px, ${y}px)`;
      this.paintBox(node, stage, uneven && stage === most, most.cost ? stage.cost / most.cost : 0);
    }
    this.paintCurtains(xs, corners);
    this.paintArrows(cuts, corners);
  }

  /** Write into a box what changed since it was drawn last. */
  paintBox(node, stage, marked, share) {
    const { costs, model } = this.view;
    const badges = badgeTexts(this.links.broadcasts, stage.index);
    const tooLarge = costs.tooLarge([stage]).length > 0;
    const move = tooLarge && costs.wouldFit(this.view.stages, stage.index);
    const would = move ? `move ${move.label} to ${move.to}` : "";
    const drawn = [would, stage.start, stage.stop, stage.cost, stage.needs, marked, share, badges[0], costs.rows, costs.device].join();
    if (node.dataset.drawn === drawn) return;
    node.dataset.drawn = drawn;
    const labels = model.labels(stage);
    const needs = tooLarge ? `needs ${formatNeed(stage.needs, costs.capacity)}` : "";
    this.paintTexts(node.children, stage, marked, { needs, labels, badges, would });
    node.style.setProperty("--pl-stage", this.view.colours[stage.index % this.view.colours.length]);
    node.classList.toggle("pl-largest", marked);
    node.classList.toggle("pl-too-large", Boolean(needs));
    node.children[4].style.transform = `scaleX(${share.toFixed(3)})`;
    this.paintFill(node.children[6].children, stage);
    set(node, { "aria-label": this.describe(stage, { labels, needs, would, badge: badges[0], marked, share }) });
  }

  paintTexts([name, mark, time, params, , bytes, , holds, badgeNode], stage, marked, { needs, labels, badges, would }) {
    const { costs, model, ruler } = this.view;
    const { narrow, named, box } = this.grid;
    const room = box - (narrow ? 14 : 22);
    const marks = MARKS[costs.timed ? "timed" : "plain"];
    name.textContent = named ? `Stage ${stage.index}` : `${stage.index}`;
    const beside = box - 30 - ruler.width(name.textContent, 12, 600);
    mark.textContent = marked ? (marks.find((text) => ruler.width(text, 11, 600) <= beside) ?? marks.at(-1)) : "";
    time.textContent = costs.timed ? formatSeconds(stage.cost) : "";
    params.textContent = formatCount(stage.params);
    const total = formatBytes(stage.needs);
    const held = needs ? [needs, needs.slice(6)] : costs.capacity ? [`${total} of ${wholeBytes(costs.capacity)}`, total] : [total];
    const wide = needs ? 600 : 400;
    bytes.textContent = held.find((text) => ruler.width(text, needs ? 11 : 12, wide) <= room) ?? held.at(-1);
    if (narrow) {
      badgeNode.textContent = holds.textContent = "";
      return;
    }
    // What would fit comes first; of a long path its ends say most, then the number.
    const names = [would, labels, model.labels(stage, endParts)];
    const last = model.labels(stage, lastPart);
    const left = (badge) => room - (badge ? ruler.width(badge) + 20 : 0);
    const written = (badge) => names.find((text) => text && ruler.width(text) <= left(badge));
    const short = badges.map((text) => `+ ${text}`).filter((text) => ruler.width(text) <= 0.6 * room);
    const chosen = short.find(written) ?? short.find((text) => ruler.width(last) <= left(text)) ?? short.at(-1);
    const badge = chosen ?? ruler.fit(badges[0] ?? "", 0.6 * room);
    badgeNode.textContent = badge;
    holds.textContent = ruler.fit(written(badge) ?? last, left(badge));
  }

  /** What fills the device's memory, side by side. */
  paintFill(parts, { memory, needs }) {
    const { capacity } = this.view.costs;
    if (capacity === null) return;
    const whole = Math.max(capacity, needs);
    for (const [index, part] of [...parts].entries()) {
      part.style.width = `${((100 * memory[KINDS[index]]) / whole).toFixed(2)}%`;
    }
  }

  /** What a screen reader says of a box. */
  describe(stage, { labels, needs, would, badge, marked, share }) {
    const { costs } = this.view;
    const least = costs.timed ? "the bottleneck" : "the largest";
    const parts = [
      labels,
      `${formatCount(stage.params)} parameters`,
      needs ? `${needs} of memory${would && `, ${would}`}` : `${formatBytes(stage.needs)} of memory`,
      costs.timed && `${formatSeconds(stage.cost)} per micro-batch`,
      marked ? least : costs.timed && `${percent(share)} of the bottleneck's time`,
      badge && `reads ${badge}, as others do`,
    ];
    return `Stage ${stage.index}: ${parts.filter(Boolean).join("; ")}`;
  }

  /** Join each stage's span of the ribbon with its box; wrapped boxes get the stage's number there instead. */
  paintCurtains(xs, corners) {
    const { rows, box } = this.grid;
    const { colours, ruler } = this.view;
    const count = corners.length;
    const shapes = keep(this.curtains, count * 2, (i) => (i % 2 ? svg("text") : svg("path")));
    for (let index = 0; index < count; index++) {
      const [left, right] = [Math.max(xs[index] + 1, 0), Math.min(xs[index + 1] - 1, this.width)];
      const [shape, text] = [shapes[2 * index], shapes[2 * index + 1]];
      const [x] = corners[index];
      const middle = this.top / 2;
      const curve = (a, b) => `C${a} ${middle} ${b} ${middle} ${b} ${this.top}`;
      const back = (a, b) => `C${a} ${middle} ${b} ${middle} ${b} 0`;
      const one = rows === 1 && right > left;
      set(shape, { d: one ? `M${left} 0${curve(left, x)}H${x + box}${back(x + box, right)}Z` : "" });
      shape.style.fill = colours[index % colours.length];
      const fits = rows > 1 && right - left >= ruler.width(`${index}`, 11) + 2;
      set(text, { x: (left + right) / 2, y: 11, text: fits ? `${index}` : "" });
    }
  }

  /** What crosses each boundary, on the way into the next box; wrapped rows also show where the input enters. */
  paintArrows(cuts, corners) {
    const { box, gap, rows } = this.grid;
    const first = rows === 1 ? 1 : 0;
    const lines = [];
    const heads = [];
    const labels = keep(this.labels, corners.length - first, (at) => this.makeLabel(at + first - 1));
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
