// The timeline pane: what ranks will do and when, painted live, and under it what they did.

import { OWN_KEYS, button, el, keep, set, svg } from "./dom.js";
import { formatSeconds, percent } from "./numbers.js";
import { TimeAxis, timeUnit } from "./axis.js";
import { Track, eventAt, isWork } from "./track.js";
import { eventWords, measuredWords, predictedWords, staleWords, stepWords } from "./timeline_words.js";

// The scale holds while what is drawn fills at least this much of it: a better split is seen to be shorter.
const LEAST_FILLED = 0.3;
// Beyond this ratio what was measured and what is predicted are of different machines: each has its own scale.
const COMPARABLE = 4;
const KEY = [
  ["F", "forward"], ["B", "backward (B)"], ["I", "gradient of inputs (I)"], ["W", "gradient of weights (W)"],
  ["wait", "waiting"], ["moving", "moving data"],
];

/** Heights of rows, by the number of ranks: sixteen stay under 300 px. */
function rowSizes(ranks, measured) {
  if (ranks > 16) return measured ? { pitch: 13, rowHeight: 7, lower: 4 } : { pitch: 13, rowHeight: 10, lower: 0 };
  if (ranks > 8) return measured ? { pitch: 18, rowHeight: 12, lower: 4 } : { pitch: 17, rowHeight: 14, lower: 0 };
  return measured ? { pitch: 30, rowHeight: 17, lower: 8 } : { pitch: 24, rowHeight: 19, lower: 0 };
}

export class TimelinePane {
  constructor(view) {
    this.view = view;
    const { colours, ruler, id } = view;
    this.predicted = new Track({ colours, ruler, id: `${id}-predicted` });
    this.measured = new Track({ colours, ruler, id: `${id}-measured` });
    this.predicted.node.classList.add("pl-predicted");
    this.measured.node.classList.add("pl-measured");
    this.axis = new TimeAxis(ruler);
    this.names = svg("g");
    this.idles = svg("g", { class: "pl-idles" });
    this.cursor = svg("path", { class: "pl-cursor", visibility: "hidden" });
    this.picture = svg("svg", { class: "pl-timeline-svg", role: "img" });
    this.picture.append(this.predicted.node, this.measured.node, this.names, this.idles, this.axis.node, this.cursor);
    this.tip = el("div", { class: "pl-timeline-tip", hidden: true });
    this.node = el("section", { class: "pl-timeline", "aria-label": "Timeline", hidden: true });
    this.node.append(this.makeHead(), el("div", { class: "pl-timeline-picture" }, this.picture, this.tip));
    this.listen();
  }

  makeHead() {
    this.title = el("span", { class: "pl-timeline-title" });
    this.key = el("span", { class: "pl-key" });
    this.result = el("span", { class: "pl-timeline-result" });
    this.stale = el("span", { class: "pl-stale" });
    this.runs = el("select", { "aria-label": "Run that is drawn", ...OWN_KEYS });
    this.second = el("div", { class: "pl-timeline-line" }, this.result, this.runs, this.stale);
    this.words = el("span", { class: "pl-step-words", "aria-live": "polite" });
    this.before = button("‹", { class: "pl-icon", "aria-label": "Micro-batch before" });
    this.after = button("›", { class: "pl-icon", "aria-label": "Next micro-batch" });
    this.steps = el("div", { class: "pl-steps" }, this.before, this.after, this.words);
    return el("div", { class: "pl-timeline-head" }, el("div", { class: "pl-timeline-line" }, this.title, this.key), this.second, this.steps);
  }

  listen() {
    const { view } = this;
    const { signal } = view.listening;
    const on = (node, event, listener) => node.addEventListener(event, listener, { signal });
    on(this.picture, "pointermove", (event) => this.point(event));
    on(this.picture, "pointerdown", (event) => this.point(event));
    on(this.picture, "pointerleave", () => this.point(null));
    on(this.picture, "click", (event) => {
      const found = this.under(event)?.event[2] ?? null;
      view.setStep(found === view.stepped ? null : found);
    });
    on(this.before, "click", () => this.step(-1));
    on(this.after, "click", () => this.step(1));
    on(this.steps, "keydown", (event) => this.press(event));
    on(this.runs, "change", () => view.showReport(this.runs.value ? Number(this.runs.value) : null));
  }

  press(event) {
    const change = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!change && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    if (change) this.step(change);
    else this.view.setStep(null);
  }

  step(change) {
    const count = this.view.numMicrobatches;
    this.view.setStep((this.view.stepped + change + count) % count);
  }

  layout(width) {
    this.width = width;
    this.paintRuns(this.view.report);
  }

  /** What is drawn as predicted; nothing where nothing takes time. */
  get prediction() {
    const { prediction } = this.view;
    return prediction?.makespan_s ? prediction : null;
  }

  paint() {
    const { prediction } = this;
    const { report } = this.view;
    this.node.hidden = !prediction && !report;
    if (this.node.hidden) return;
    this.measure(prediction, report);
    this.paintHead(prediction, report);
    const { rowHeight, place, scales } = this;
    const lit = this.view.stepped;
    set(this.predicted.node, { visibility: prediction ? false : "hidden" });
    set(this.measured.node, { visibility: report ? false : "hidden" });
    if (prediction) this.predicted.draw(prediction, { ...place, rowHeight, end_s: scales.predicted, lit });
    if (report) this.paintMeasured(report, { ...place, ...this.secondRow(prediction), end_s: scales.measured, lit });
    this.paintLabels(prediction, report);
    this.paintSteps(prediction ?? report, lit);
    this.picture.classList.toggle("pl-stepping", lit !== null);
    set(this.cursor, { d: `M0 0V${this.bottom}` });
    this.point(null);
  }

  /** Where everything lies. */
  measure(prediction, report) {
    const { ruler } = this.view;
    const ranks = Math.max(prediction?.rows.length ?? 0, report?.rows.length ?? 0);
    const sizes = rowSizes(ranks, Boolean(prediction && report));
    this.short = this.width < 480;
    const left = Math.ceil(ruler.width(this.short ? "88" : "rank 88")) + 8;
    const right = Math.ceil(ruler.width(this.short ? "100 %" : "idle 100 %")) + 10;
    const place = { left, width: Math.max(20, this.width - left - right), pitch: sizes.pitch };
    Object.assign(this, { ranks, place, rowHeight: sizes.rowHeight, lower: sizes.lower, bottom: ranks * sizes.pitch });
    this.useScales(prediction, report);
    const height = this.bottom + 20;
    set(this.picture, { width: this.width, height, viewBox: `0 0 ${this.width} ${height}` });
  }

  /** One scale for both in seconds; each its own, in per cent of its step, where they cannot be compared. */
  useScales(prediction, report) {
    const [ours, theirs] = [prediction?.makespan_s ?? 0, report?.makespan_s ?? 0];
    const apart = prediction && report && Math.max(ours / theirs, theirs / ours) > COMPARABLE;
    const share = prediction?.unit === "share" || Boolean(apart);
    const { costs, data } = this.view;
    // FLOPs are of one micro-batch, which another number of them makes larger or smaller: held is what the batch takes.
    const unit = prediction?.unit === "share" ? costs.rows / data.batch_size : 1;
    const need = unit * (share ? ours : Math.max(ours, theirs));
    const of = `${share} ${costs.device}`;
    if (of !== this.heldOf || need > this.held || need < LEAST_FILLED * this.held) this.held = need;
    this.heldOf = of;
    const shown = this.held / unit;
    const end_s = share ? ours : shown;
    this.scales = { share, predicted: shown, measured: share && ours ? (shown * theirs) / ours : shown };
    this.times = { unit: timeUnit(end_s, share), end_s };
    const { left, width } = this.place;
    this.axis.draw({ left, width: shown ? (width * end_s) / shown : 0, end_s, y: this.bottom, unit: this.times.unit });
  }

  /** Measured rows lie under the predicted ones, or in their place where nothing is predicted. */
  secondRow(prediction) {
    return prediction ? { top: this.rowHeight + 1, rowHeight: this.lower } : { rowHeight: this.rowHeight };
  }

  /** Drawn anew only where it is another report, or elsewhere. */
  paintMeasured(report, place) {
    const key = JSON.stringify(place);
    if (this.drawn === report && this.drawnKey === key) return;
    [this.drawn, this.drawnKey] = [report, key];
    this.measured.draw(report, place);
  }

  paintHead(prediction, report) {
    const { view } = this;
    const title = prediction ? predictedWords(prediction, view) : "";
    if (this.title.textContent !== title) this.title.textContent = title;
    this.paintKey(prediction, report);
    const stale = report ? staleWords(report, view) : "";
    this.node.classList.toggle("pl-faded", Boolean(stale));
    if (this.stale.textContent !== stale) this.stale.textContent = stale;
    const apart = this.scales.share && prediction !== null;
    if (this.told === report && this.toldApart === apart) return;
    [this.told, this.toldApart] = [report, apart];
    const none = this.second.hidden ? "" : "Measured:";
    set(this.result, { text: report ? measuredWords(report, apart) : none, title: report?.where });
  }

  /** Which run is drawn, or none. */
  paintRuns(report) {
    const { reports } = this.view;
    const several = reports.length > 1;
    this.second.hidden = !reports.length;
    const texts = reports.map(({ step_s }, index) => (several ? `run ${index + 1} of ${reports.length}: ${formatSeconds(step_s)}` : "drawn"));
    texts.push("not drawn");
    for (const [index, option] of [...keep(this.runs, texts.length, () => el("option"))].entries()) {
      set(option, { text: texts[index], value: reports[index]?.index ?? "" });
    }
    const same = (one) => one.step_s === report?.step_s && one.cuts.join() === report.cuts.join();
    this.runs.value = `${reports.findLast(same)?.index ?? ""}`;
  }

  /** A sample of every look that is there. */
  paintKey(prediction, report) {
    const kinds = new Set(["wait"]);
    // The first rank does everything that any rank does.
    for (const [kind] of [...(prediction?.rows[0] ?? []), ...(report?.rows[0] ?? [])]) kinds.add(isWork(kind) ? kind : "moving");
    const under = prediction && report ? `thin row: measured${this.scales.share ? ", on its own scale" : ""}` : "";
    const key = [...kinds].sort().join() + under;
    if (this.keyed === key) return;
    this.keyed = key;
    const shown = KEY.filter(([kind]) => kinds.has(kind) && !(kind === "F" && kinds.size < 4 && !kinds.has("B")));
    this.key.replaceChildren(...shown.map(([kind, text]) => el("span", {}, this.sample(kind), text)));
    if (under) this.key.append(el("span", { text: under }));
  }

  sample(kind) {
    const picture = svg("svg", { width: 16, height: 10, "aria-hidden": "true" });
    const d = kind === "moving" ? "M0 3.5h16v3h-16z" : "M0 0h16v10h-16z";
    const path = svg("path", { d, class: { wait: "pl-ground", moving: "pl-moving" }[kind] ?? `pl-work-${kind}` });
    path.style.setProperty("--pl-stage", this.view.colours[0]);
    picture.append(path);
    if (["B", "I", "W"].includes(kind)) picture.append(svg("path", { d, fill: `url(#${this.predicted.id}-${kind})` }));
    return picture;
  }

  /** Who a row is of, and how much of it is idle. */
  paintLabels(prediction, report) {
    const { ranks, place, rowHeight, width, short } = this;
    const every = Math.ceil(13 / place.pitch);
    const rows = Array.from({ length: ranks }, (_, rank) => rank).filter((rank) => rank % every === 0);
    const lines = rows.map((rank) => [0, rank * place.pitch + rowHeight / 2 + 4, short ? `${rank}` : `rank ${rank}`]);
    writeLines(this.names, lines, "start");
    const first = prediction ?? report;
    const idle = (one, rank) => (rank < one.rows.length ? percent(one.rank_idle[rank]) : "");
    const right = rows.map((rank) => {
      const text = idle(first, rank);
      return [width, rank * place.pitch + rowHeight / 2 + 4, text && !short ? `idle ${text}` : text];
    });
    if (prediction && report && place.pitch >= 28) {
      for (const rank of rows) right.push([width, rank * place.pitch + rowHeight + 9, idle(report, rank)]);
    }
    writeLines(this.idles, right, "end");
    const head = [this.title.textContent, report ? this.result.textContent : "", this.stale.textContent].filter(Boolean).join(". ");
    const each = first.rank_idle.map((share, rank) => `Rank ${rank} idle ${percent(share)}.`).join(" ");
    set(this.picture, { "aria-label": `${head}. ${each}` });
  }

  paintSteps(timeline, lit) {
    this.steps.hidden = lit === null;
    if (lit === null) return;
    const words = stepWords(timeline, lit, this.times);
    if (this.words.textContent !== words) this.words.textContent = words;
  }

  /** The row and the event under the pointer, or null. */
  under({ clientX, clientY }) {
    const { left, width, pitch } = this.place;
    const around = this.picture.getBoundingClientRect();
    const zoom = around.width / this.width || 1;
    const [x, y] = [(clientX - around.left) / zoom, (clientY - around.top) / zoom];
    const rank = Math.floor(y / pitch);
    if (x < left || x > left + width || rank < 0 || rank >= this.ranks) return null;
    const { prediction } = this;
    const { report } = this.view;
    const measured = report && (!prediction || y - rank * pitch > this.rowHeight);
    const timeline = measured ? report : prediction;
    const end_s = measured ? this.scales.measured : this.scales.predicted;
    const event = eventAt(timeline, rank, ((x - left) / width) * end_s);
    return event && { rank, event, x, measured, timeline };
  }

  /** The cursor and what is under it. */
  point(event) {
    const found = event && this.under(event);
    set(this.cursor, { visibility: found ? false : "hidden" });
    this.tip.hidden = !found;
    if (!found) return;
    set(this.cursor, { transform: `translate(${found.x})` });
    const times = this.scales.share ? { unit: timeUnit(found.timeline.makespan_s, true), end_s: found.timeline.makespan_s } : this.times;
    const text = `${found.measured ? "measured: " : ""}${eventWords(found.rank, found.event, times)}`;
    this.tip.textContent = text;
    const half = this.view.ruler.width(text) / 2 + 9;
    const x = Math.min(Math.max(found.x, half), Math.max(half, this.width - half));
    this.tip.style.left = `${x}px`;
    this.tip.style.top = `${found.rank * this.place.pitch - 4}px`;
  }
}

/** Texts at places, reused. */
function writeLines(parent, lines, anchor) {
  const nodes = keep(parent, lines.length, () => svg("text", { "text-anchor": anchor }));
  for (const [index, [x, y, text]] of lines.entries()) {
    if (nodes[index].textContent !== text) nodes[index].textContent = text;
    set(nodes[index], { x, y });
  }
}
