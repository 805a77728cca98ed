// The browser half of a comparison. Python sends every figure; here they are laid out on the same axes, with one
// cursor and one zoom for all plans. pipelab/viz/modules.py joins these files into one module:
//
//   numbers, model (data) -> dom, strip, zoom, track, axis (shared with the explorer) -> figures, lane, plan_row -> comparison
//
// Names of models and plans are only ever set through textContent.

import { formatSeconds } from "./numbers.js";
import { Model } from "./model.js";
import { OWN_KEYS, Ruler, button, el, set, svg } from "./dom.js";
import { listenToZoom, panned, zoomedByKey } from "./zoom.js";
import { TimeAxis, timeUnit } from "./axis.js";
import { PlanRow } from "./plan_row.js";
import { figuresOf, spaced } from "./figures.js";

const TICKS = 24;

const KEYS = [
  ["Name of a plan", "click or Enter: the others' figures are told as differences from it"],
  ["Pointer", "over a ribbon: which block lies there, and which stage of each plan; over a timeline: the time"],
  ["← →", "on the line above the ribbons: a block on; Home, End; Esc hides the line. On the time axis: a step on"],
  ["+ − 0", "zoom in, out, all; Shift with ← → moves along. With the mouse: Ctrl and wheel, drag, double click on a block"],
];

class ComparisonPane {
  constructor(traits, host) {
    Object.assign(this, { traits, host });
    this.state = traits.get("_comparison");
    this.colours = traits.get("_colours");
    this.model = new Model(traits.get("_data"));
    this.id = `pl-${Math.random().toString(36).slice(2, 10)}`;
    this.ruler = new Ruler();
    this.ruler.use(host);
    this.listening = new AbortController();
    this.zoom = [0, 1];
    this.place = null;
    this.time = null;
    this.timelinesOpen = false;
    const { places, objective, entries } = this.state;
    this.sizeOf = objective === "time" ? (start, stop) => places[stop] - places[start] : (start, stop) => this.model.size(start, stop).params;
    const spans = entries.map(({ predicted, measured, shares_axis }) =>
      Math.max(predicted.makespan_s, measured && shares_axis ? measured.makespan_s : 0));
    this.end_s = Math.max(...spans);
    this.figureKeys = figuresOf(entries[0], entries[0], this.state).map(({ key }) => key);
    const ranks = entries.flatMap(({ predicted, measured }) => [predicted.rows.length, measured?.rows.length ?? 0]);
    this.laneLeft = Math.ceil(this.ruler.width(`rank ${Math.max(...ranks) - 1}`)) + 8;
    this.build();
    this.wire();
  }

  get chosen() {
    const name = this.traits.get("value");
    return this.state.entries.find((entry) => entry.name === name);
  }

  // --- elements

  build() {
    const { state, model } = this;
    const { data } = model;
    this.rows = state.entries.map((entry, index) => new PlanRow(this, entry, index));
    this.buildPlace();
    this.buildTime();
    this.help = this.makeHelp();
    this.helpButton = button("?", { class: "pl-icon", "aria-label": "Help", "aria-expanded": "false", "aria-controls": this.help.id });
    const title = el("div", { class: "pl-title" }, el("strong", { class: "pl-name", text: data.model, title: data.model }));
    title.append(el("span", { class: "pl-about", text: data.about }), this.helpButton);
    const verdict = el("div", { class: "pl-verdict" }, el("span", { text: spaced(state.verdict) }));
    this.plans = el("div", { class: "pl-plans" }, ...this.rows.map(({ node }) => node));
    const refusals = state.refusals.map((text) => el("div", { class: "pl-refused", text: spaced(text) }));
    const about = el("div", { class: "pl-rests", text: state.about });
    this.root = el("div", { class: "pl-explorer pl-comparison", role: "group", "aria-label": `Comparison of plans: ${data.model}` });
    this.root.append(title, this.help, verdict, this.makeBar(), this.placeLine, this.plans, this.timeLine, ...refusals, about);
    this.host.classList.add("pl-host");
    this.host.replaceChildren(this.root);
  }

  makeHelp() {
    const help = el("dl", { class: "pl-help", id: `${this.id}-help`, hidden: true });
    const [above, times] = this.state.notes;
    const split = (note) => [note.slice(0, note.indexOf(":")), note.slice(note.indexOf(": ") + 2)];
    for (const [term, text] of [...KEYS, split(above), split(times)]) {
      help.append(el("dt", { text: term }), el("dd", { text: spaced(text) }));
    }
    return help;
  }

  /** What the differences are from; the whole model after a zoom; timelines. */
  makeBar() {
    this.beside = el("span", { class: "pl-beside", "aria-live": "polite" });
    this.whole = button("Whole model", { hidden: true });
    this.toggle = button("Timelines", { "aria-expanded": "false" });
    return el("div", { class: "pl-comparison-bar" }, this.beside, this.whole, this.toggle);
  }

  /** The line above the ribbons: says which block lies under the cursor, and moves it by keys. */
  buildPlace() {
    this.placeText = el("span");
    this.placeLine = el("div", {
      class: "pl-place", role: "slider", tabindex: "0", "aria-label": "Place along the model", "aria-valuemin": 0,
      "aria-valuemax": Math.max(0, this.model.data.blocks.length - 1), "aria-valuenow": 0, ...OWN_KEYS,
    });
    this.placeLine.append(this.placeText);
  }

  buildTime() {
    this.axis = new TimeAxis(this.ruler);
    this.timePicture = svg("svg", { "aria-hidden": "true" });
    this.timePicture.append(this.axis.node);
    this.timeText = el("span");
    this.timeLine = el("div", {
      class: "pl-time", role: "slider", tabindex: "0", hidden: true, "aria-label": "Time of the step", "aria-valuemin": 0,
      "aria-valuemax": TICKS, "aria-valuenow": 0, ...OWN_KEYS,
    });
    this.timeLine.append(this.timePicture, this.timeText);
  }

  // --- listening

  wire() {
    const { signal } = this.listening;
    const on = (node, event, listener) => node.addEventListener(event, listener, { signal });
    on(this.helpButton, "click", () => {
      this.help.hidden = !this.help.hidden;
      set(this.helpButton, { "aria-expanded": `${!this.help.hidden}` });
    });
    on(this.toggle, "click", () => this.toggleTimelines());
    on(this.whole, "click", () => this.setZoom([0, 1]));
    on(this.placeLine, "keydown", (event) => this.pressPlaceKey(event));
    on(this.timeLine, "keydown", (event) => this.pressTimeKey(event));
    on(this.placeLine, "focus", () => this.placeLine.matches(":focus-visible") && this.setPlace(this.place ?? this.middle(0)));
    on(this.placeLine, "blur", () => this.setPlace(null));
    on(this.timeLine, "focus", () => this.timeLine.matches(":focus-visible") && this.setTime(this.time ?? 0));
    on(this.timeLine, "blur", () => this.setTime(null));
    for (const row of this.rows) this.wireRow(row, on);
    this.follow = () => this.paintChosen();
    this.traits.on("change:value", this.follow);
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 50 && width !== this.width) this.layout(width);
    });
    this.observer.observe(this.plans);
  }

  wireRow(row, on) {
    on(row.button, "click", () => this.choose(row.entry.name));
    const along = (node, event) => event.clientX - node.getBoundingClientRect().left;
    for (const event of ["pointermove", "pointerdown"]) {
      on(row.ribbon, event, (at) => this.later(() => this.setPlace(row.strip.position(along(row.ribbon, at)))));
    }
    on(row.ribbon, "pointerleave", () => this.later(() => this.setPlace(null)));
    for (const lane of row.lanes.filter(({ hasOwnAxis }) => !hasOwnAxis)) {
      on(lane.picture, "pointermove", (at) => this.later(() => this.setTime(lane.timeAt(along(lane.picture, at)))));
      on(lane.picture, "pointerleave", () => this.later(() => this.setTime(null)));
    }
    listenToZoom(row.ribbon, {
      get: () => this.zoom,
      set: (zoom) => this.setZoom(zoom),
      signal: this.listening.signal,
      rangeAt: (share) => this.rangeAt(share),
    });
  }

  /** Of several moves within a frame only the last is drawn. */
  later(act) {
    this.act = act;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.act();
    });
  }

  destroy() {
    this.listening.abort();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.traits.off("change:value", this.follow);
  }

  // --- drawing

  layout(width = this.width ?? 872) {
    this.width = width;
    this.root.classList.toggle("pl-slim", width < 700);
    this.ruler.use(this.host);
    for (const row of this.rows) row.layout(width);
    this.layoutTime();
    this.whole.hidden = this.zoom[1] - this.zoom[0] >= 1;
    this.paintChosen();
    this.setPlace(this.place);
  }

  layoutTime() {
    const { laneLeft, width, end_s } = this;
    this.timeLine.hidden = !this.timelinesOpen;
    set(this.timePicture, { width, height: 20, viewBox: `0 0 ${width} 20` });
    this.axis.draw({ left: laneLeft, width: width - laneLeft, end_s, y: 0, unit: timeUnit(end_s) });
  }

  paintChosen() {
    const { chosen, rows } = this;
    for (const row of rows) row.paintFigures();
    this.beside.textContent = rows.length > 1 ? `Differences are from ${chosen.name}` : "";
  }

  // --- what is chosen, shown, open

  choose(name) {
    this.traits.set("value", name);
    this.traits.save_changes();
    this.paintChosen();
  }

  toggleTimelines() {
    this.timelinesOpen = !this.timelinesOpen;
    set(this.toggle, { "aria-expanded": `${this.timelinesOpen}` });
    this.layout();
  }

  setZoom(zoom) {
    this.zoom = zoom;
    this.layout();
  }

  /** The range of shares of the block at a share of the whole width. */
  rangeAt(share) {
    const { before } = this.rows[0].strip;
    const [, start, stop] = this.model.data.blocks.findLast(([, start]) => before[start] <= share) ?? this.model.data.blocks[0];
    return [before[start], before[stop]];
  }

  // --- the cursor along the model

  blockAt(place) {
    const index = this.model.data.blocks.findIndex(([, , stop]) => place < stop);
    return index < 0 ? this.model.data.blocks.length - 1 : index;
  }

  middle(block) {
    const [, start, stop] = this.model.data.blocks[block];
    return (start + stop) / 2;
  }

  setPlace(place) {
    this.place = place;
    for (const row of this.rows) row.paintPlace(place);
    const block = place === null ? 0 : this.blockAt(place);
    const label = this.model.data.blocks[block]?.[0] ?? "";
    this.placeText.textContent = place === null ? "" : label;
    if (place !== null) moveTo(this.placeText, this.rows[0].x(place), this.width);
    const told = this.rows.map((row) => `${row.entry.name}: ${row.textsAt(place ?? 0)[1]}`);
    set(this.placeLine, { "aria-valuenow": block, "aria-valuetext": `${label}. ${told.join("; ")}` });
  }

  pressPlaceKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const zoom = event.shiftKey || !event.key.startsWith("Arrow") ? zoomedByKey(this.zoom, event.key) : undefined;
    const last = this.model.data.blocks.length - 1;
    const at = this.place === null ? -1 : this.blockAt(this.place);
    const blocks = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last };
    if (zoom) this.setZoom(zoom);
    else if (event.key === "Escape") this.setPlace(null);
    else if (event.key in blocks) this.showBlock(Math.min(Math.max(blocks[event.key], 0), last));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Move the cursor to a block, and into sight. */
  showBlock(block) {
    const place = this.middle(block);
    const share = this.rows[0].x(place) / this.width;
    if (share < 0 || share > 1) this.setZoom(panned(this.zoom, share - 0.5));
    this.setPlace(place);
  }

  // --- the cursor in time

  setTime(time) {
    this.time = time;
    for (const row of this.rows) row.paintTime(time);
    this.timeText.textContent = time === null ? "" : formatSeconds(time);
    const left = this.laneLeft;
    if (time !== null) moveTo(this.timeText, left + (time / this.end_s) * (this.width - left), this.width);
    const told = this.rows.map((row) => `${row.entry.name}: ${row.textAtTime(time ?? 0)}`);
    const now = Math.round(((time ?? 0) / this.end_s) * TICKS) || 0;
    set(this.timeLine, { "aria-valuenow": now, "aria-valuetext": `${formatSeconds(time ?? 0)}. ${told.join("; ")}` });
  }

  pressTimeKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const step = this.end_s / TICKS;
    const at = this.time ?? -step;
    const times = { ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step, Home: 0, End: this.end_s };
    if (event.key === "Escape") this.setTime(null);
    else if (event.key in times) this.setTime(Math.min(Math.max(times[event.key], 0), this.end_s));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** Centre a text at `x`, inside the width. */
function moveTo(node, x, width) {
  const half = node.offsetWidth / 2;
  node.style.transform = `translateX(${Math.round(Math.min(Math.max(x - half, 0), width - 2 * half))}px)`;
}

function render({ model, el: host }) {
  const pane = new ComparisonPane(model, host);
  pane.layout();
  pane.root.dataset.ready = "1";
  return () => pane.destroy();
}

export default { render };
