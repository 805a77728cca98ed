// One plan of a comparison: its name and policy, its ribbon, its figures and its timelines.

import { formatSeconds, percent } from "./numbers.js";
import { button, el, keep, set, svg } from "./dom.js";
import { Strip } from "./strip.js";
import { Lane } from "./lane.js";
import { busyAt, figuresOf, headForms, stageAt, stageTexts } from "./figures.js";

const HEADS = 19;
const STRIP = 36; // three rows of names, once zoomed

export class PlanRow {
  constructor(view, entry, index) {
    Object.assign(this, { view, entry, index });
    const { colours, ruler, model } = view;
    this.button = button(entry.name, { class: "pl-plan-name", title: entry.name });
    this.policy = el("span", { class: "pl-plan-policy", text: policyText(entry), title: entry.policy });
    this.readout = el("span", { class: "pl-readout" });
    this.heads = svg("svg", { class: "pl-heads", "aria-hidden": "true" });
    this.strip = new Strip({ model, colours, ruler, height: STRIP });
    this.line = el("div", { class: "pl-cursor-line", hidden: true });
    this.ribbon = el("div", { class: "pl-plan-ribbon" }, this.heads, this.strip.node, this.line);
    this.figures = el("dl", { class: "pl-figures" });
    this.lanes = this.makeLanes();
    this.timelines = el("div", { class: "pl-lanes", hidden: true }, ...this.lanes.map(({ node }) => node));
    const head = el("div", { class: "pl-plan-head" }, this.button, this.policy, this.readout);
    this.node = el("section", { class: "pl-plan", "aria-label": entry.name });
    this.node.append(head, this.ribbon, this.figures, this.timelines);
  }

  makeLanes() {
    const { colours, ruler, id } = this.view;
    const { predicted, measured, shares_axis } = this.entry;
    const shared = { colours, ruler };
    const first = new Lane({ ...shared, id: `${id}-${this.index}-p`, timeline: predicted, hasOwnAxis: false });
    if (!measured) return [first];
    return [first, new Lane({ ...shared, id: `${id}-${this.index}-m`, timeline: measured, hasOwnAxis: !shares_axis })];
  }

  // --- what does not move with the pointer

  layout(width) {
    this.width = width;
    this.layoutRibbon();
    this.figures.style.gridTemplateColumns = columnsOf(this.view.figureKeys, width);
    this.layoutLanes();
  }

  layoutRibbon() {
    const { zoom, sizeOf } = this.view;
    this.strip.layout(this.width, { zoom, sizeOf });
    this.strip.paint(this.entry.cuts);
    this.paintHeads();
  }

  /** A head on each stage: its number, and what it costs where there is room. */
  paintHeads() {
    const { entry, strip, width, view } = this;
    const edges = [0, ...entry.cuts, view.model.numOps].map((position) => strip.clamp(strip.x(position)));
    const spans = edges.slice(1).map((edge, index) => edge - edges[index]);
    const forms = headForms(entry, view.state.objective);
    const fits = (text, index) => view.ruler.width(text, 11, 600) + 8 <= spans[index];
    const seen = spans.filter((span) => span > 0).length;
    const form = forms.find((texts) => 2 * texts.filter(fits).length >= seen) ?? forms.at(-1);
    const textOf = (index) => [form, ...forms.slice(2)].find((texts) => fits(texts[index], index))?.[index] ?? "";
    set(this.heads, { width, height: HEADS, viewBox: `0 0 ${width} ${HEADS}` });
    const groups = keep(this.heads, spans.length, makeHead);
    for (const [index, group] of [...groups].entries()) {
      const [rect, text] = group.children;
      const left = edges[index] + (edges[index] > 0 ? 1 : 0);
      const right = edges[index + 1] - (edges[index + 1] < width ? 1 : 0);
      set(rect, { x: left, width: Math.max(0, right - left), height: HEADS });
      rect.style.fill = view.colours[index % view.colours.length];
      set(text, { x: (left + right) / 2, y: 13, text: textOf(index) });
    }
  }

  layoutLanes() {
    const { view, entry } = this;
    this.timelines.hidden = !view.timelinesOpen;
    if (!view.timelinesOpen) return;
    const left = view.laneLeft;
    const [predicted, measured] = this.lanes;
    const idle = (timeline) => `idle ${percent(timeline.idle)}`;
    const text = `predicted: ${formatSeconds(entry.step_s)}, ${idle(entry.predicted)}`;
    predicted.layout({ width: this.width, left, end_s: view.end_s, text });
    if (!measured) return;
    const apart = measured.hasOwnAxis ? ", on an axis of its own" : "";
    const ran = `measured: ${entry.measured_text}, ${idle(entry.measured)}${apart}`;
    measured.layout({ width: this.width, left, end_s: view.end_s, text: ran });
  }

  /** The figures, and their differences from the chosen plan. */
  paintFigures() {
    const { entry, view } = this;
    const isChosen = entry === view.chosen;
    set(this.button, { "aria-pressed": `${isChosen}` });
    this.node.classList.toggle("pl-chosen", isChosen);
    const figures = figuresOf(entry, view.chosen, view.state);
    const boxes = keep(this.figures, figures.length, makeFigure);
    for (const [index, figure] of figures.entries()) paintFigure(boxes[index], figure);
  }

  // --- what moves with the pointer

  /** The line at a place along the model, and the stage that lies there. */
  paintPlace(place) {
    const x = place === null ? -1 : this.x(place);
    const isSeen = x >= 0 && x <= this.width;
    this.line.hidden = !isSeen;
    if (isSeen) this.line.style.transform = `translateX(${x.toFixed(1)}px)`;
    this.tell(place === null ? [""] : this.textsAt(place));
  }

  /** Where a place along the model lies: a position, perhaps with a fraction. */
  x(place) {
    const position = Math.floor(place);
    const left = this.strip.x(position);
    return place === position ? left : left + (place - position) * (this.strip.x(position + 1) - left);
  }

  textsAt(place) {
    const stage = stageAt(this.entry.cuts, Math.floor(place));
    return stageTexts(stage, this.entry.stages[stage]);
  }

  /** The line at a time, and how many ranks compute then. */
  paintTime(time) {
    for (const lane of this.lanes) lane.paint(time);
    this.tell(time === null ? [""] : [this.textAtTime(time)]);
  }

  textAtTime(time) {
    const { predicted } = this.entry;
    if (time > predicted.makespan_s) return "done";
    return `${busyAt(predicted, time)} of ${predicted.rows.length} ranks compute`;
  }

  /** Say it in the words that there is room for. */
  tell(texts) {
    const room = this.width - this.view.ruler.width(this.entry.name, 14, 650) - 24;
    this.readout.textContent = texts.find((text) => this.view.ruler.width(text, 12) <= room) ?? texts.at(-1);
    this.node.classList.toggle("pl-told", this.readout.textContent !== "");
  }
}

// What a figure takes with its difference, in pixels.
const ROOM_OF = {
  params: 112, bottleneck: 124, step: 110, measured: 102, idle: 102, memory: 165, sends: 112, above: 150,
};
const ROOM_OF_ANY = 165;
const GAP = 10;

/** One row of columns, each as wide as it needs to be; or as many equal ones as there is room for. */
function columnsOf(keys, width) {
  const rooms = keys.map((key) => ROOM_OF[key]);
  if (rooms.reduce((sum, room) => sum + room + GAP, -GAP) <= width) return rooms.map((room) => `${room}fr`).join(" ");
  const most = Math.max(1, Math.floor((width + GAP) / (ROOM_OF_ANY + GAP)));
  return `repeat(${Math.ceil(keys.length / Math.ceil(keys.length / most))}, 1fr)`;
}

function policyText({ policy, stages }) {
  const count = stages.length === 1 ? "1 stage" : `${stages.length} stages`;
  return policy ? `${count}, ${policy}` : count;
}

function makeHead() {
  const group = svg("g");
  group.append(svg("rect"), svg("text", { class: "pl-on-colour", "text-anchor": "middle" }));
  return group;
}

function makeFigure() {
  const bar = el("div", { class: "pl-bar", hidden: true }, el("div"));
  const value = el("dd", {}, el("span"), " ", el("span", { class: "pl-change" }), bar);
  return el("div", { class: "pl-figure" }, el("dt"), value);
}

function paintFigure(box, { key, term, text, change, share, isOver }) {
  const [dt, dd] = box.children;
  const [value, differs, bar] = dd.children;
  box.dataset.figure = key;
  dt.textContent = term;
  value.textContent = text;
  differs.textContent = change;
  bar.hidden = share === undefined;
  bar.classList.toggle("pl-over", isOver === true);
  bar.firstChild.style.width = `${100 * (share ?? 0)}%`;
}
