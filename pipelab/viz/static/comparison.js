// The browser half of a comparison. Python sends every figure; here they are laid out on the same axes, with one
// cursor and one zoom for all plans. pipelab/viz/modules.py joins these files into one module:
//
//   numbers, model (data) -> dom, strip, zoom, track, axis (the explorer's too) -> figures, lane, plan_row, cursors
//
// Names of models and plans are only ever set through textContent.

import { Model } from "./model.js";
import { Ruler, button, el, set } from "./dom.js";
import { listenToZoom, panned } from "./zoom.js";
import { hideStills } from "./still.js";
import { PlanRow } from "./plan_row.js";
import { PlaceCursor, TimeCursor } from "./cursors.js";
import { figuresOf } from "./figures.js";

const KEYS = [
  ["Name of a plan", "click or Enter: the others' figures are told as differences from it"],
  ["Pointer", "over a ribbon: the block there, and each plan's stage; over a timeline: the time"],
  ["← →", "on the line above the ribbons: a block on; on the time axis: a step on. Home, End; Esc hides the line"],
  ["+ − 0", "there: zoom in, out, all; Shift with ← → moves along. By mouse: Ctrl and wheel, drag, double click"],
];

class ComparisonPane {
  constructor(traits, host) {
    Object.assign(this, { traits, host, zoom: [0, 1], timelinesOpen: false });
    this.state = traits.get("_comparison");
    this.colours = traits.get("_colours");
    this.model = new Model(traits.get("_data"));
    this.id = `pl-${Math.random().toString(36).slice(2, 10)}`;
    this.ruler = new Ruler();
    this.ruler.use(host);
    this.listening = new AbortController();
    this.sizeOf = sizesOf(this.state, this.model);
    const { entries } = this.state;
    this.figureKeys = figuresOf(entries[0], entries[0], this.state).map(({ key }) => key);
    this.end_s = Math.max(...entries.map(({ predicted, measured, shares_axis }) =>
      Math.max(predicted.makespan_s, measured && shares_axis ? measured.makespan_s : 0)));
    const ranks = entries.flatMap(({ predicted, measured }) => [predicted.rows.length, measured?.rows.length ?? 0]);
    this.laneLeft = Math.ceil(this.ruler.width(`rank ${Math.max(...ranks) - 1}`)) + 8;
    this.build();
    this.wire();
  }

  get chosen() {
    const name = this.traits.get("value");
    return this.state.entries.find((entry) => entry.name === name);
  }

  build() {
    const { state } = this;
    const { data } = this.model;
    this.rows = state.entries.map((entry, index) => new PlanRow(this, entry, index));
    this.place = new PlaceCursor(this);
    this.time = new TimeCursor(this, this.end_s);
    this.help = this.makeHelp();
    this.helpButton = button("?", { class: "pl-icon", "aria-label": "Help", "aria-expanded": "false" });
    set(this.helpButton, { "aria-controls": this.help.id });
    const name = el("strong", { class: "pl-name", text: data.model, title: data.model });
    const batch = el("span", { class: "pl-about", text: data.about });
    const title = el("div", { class: "pl-title" }, name, batch, this.helpButton);
    const verdict = el("div", { class: "pl-verdict" }, el("span", { text: state.verdict }));
    this.plans = el("div", { class: "pl-plans" }, ...this.rows.map(({ node }) => node));
    const refusals = state.refusals.map((text) => el("div", { class: "pl-refused", text }));
    const about = el("div", { class: "pl-rests", text: state.about });
    const label = `Comparison of plans: ${data.model}`;
    this.root = el("div", { class: "pl-explorer pl-comparison", role: "group", "aria-label": label });
    this.root.append(title, this.help, verdict, this.makeBar(), this.place.node, this.plans, this.time.node);
    this.root.append(...refusals, about);
    this.host.classList.add("pl-host");
    this.host.replaceChildren(this.root);
  }

  /** What the keys are, and what the figures mean. */
  makeHelp() {
    const help = el("dl", { class: "pl-help", id: `${this.id}-help`, hidden: true });
    const parted = (note) => [note.slice(0, note.indexOf(":")), note.slice(note.indexOf(": ") + 2)];
    for (const [term, text] of [...KEYS, ...this.state.notes.map(parted)]) {
      help.append(el("dt", { text: term }), el("dd", { text }));
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

  wire() {
    const { signal } = this.listening;
    const on = (node, event, listener) => node.addEventListener(event, listener, { signal });
    on(this.helpButton, "click", () => {
      this.help.hidden = !this.help.hidden;
      set(this.helpButton, { "aria-expanded": `${!this.help.hidden}` });
    });
    on(this.toggle, "click", () => this.toggleTimelines());
    on(this.whole, "click", () => this.showWhole());
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
    const { place, time } = this;
    const scale = () => this.plans.getBoundingClientRect().width / this.plans.offsetWidth;
    const along = (node, event) => (event.clientX - node.getBoundingClientRect().left) / scale();
    on(row.button, "click", () => this.choose(row.entry.name));
    for (const event of ["pointermove", "pointerdown"]) {
      on(row.ribbon, event, (at) => this.later(() => place.set(row.strip.position(along(row.ribbon, at)))));
    }
    on(row.ribbon, "pointerleave", () => this.later(() => place.set(null)));
    for (const { picture, timeAt } of row.lanes.filter(({ hasOwnAxis }) => !hasOwnAxis)) {
      on(picture, "pointermove", (at) => this.later(() => time.set(timeAt(along(picture, at)))));
      on(picture, "pointerleave", () => this.later(() => time.set(null)));
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
    this.ruler.use(this.root);
    for (const row of this.rows) row.layout(width);
    this.time.layout(this);
    this.whole.hidden = this.zoom[1] - this.zoom[0] >= 1;
    this.paintChosen();
    this.place.set(this.place.place);
  }

  paintChosen() {
    for (const row of this.rows) row.paintFigures();
    // Whatever way its letters run, the sentence keeps its order.
    if (this.rows.length > 1) this.beside.replaceChildren("Differences are from ", el("bdi", { text: this.chosen.name }));
  }

  // --- what is chosen, open, in sight

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
    for (const row of this.rows) row.layoutRibbon();
    this.whole.hidden = zoom[1] - zoom[0] >= 1;
    this.place.set(this.place.place);
  }

  showWhole() {
    this.toggle.focus(); // the pressed button goes
    this.setZoom([0, 1]);
  }

  /** Move along so that this share of the width lies inside. */
  bringIntoSight(share) {
    if (share < 0 || share > 1) this.setZoom(panned(this.zoom, share - 0.5));
  }

  /** The range of the block at a share of the whole width. */
  rangeAt(share) {
    const { before } = this.rows[0].strip;
    const { blocks } = this.model.data;
    const [, start, stop] = blocks.findLast(([, start]) => before[start] <= share) ?? blocks[0];
    return [before[start], before[stop]];
  }
}

/** How wide a range of ops is: as what is compared, time or parameters. */
function sizesOf({ objective, places }, model) {
  if (objective === "time") return (start, stop) => places[stop] - places[start];
  return (start, stop) => model.size(start, stop).params;
}

function render({ model, el: host }) {
  const showStills = hideStills(model.get("_still"));
  const pane = new ComparisonPane(model, host);
  pane.layout();
  pane.root.dataset.ready = "1";
  return () => {
    pane.destroy();
    showStills();
  };
}

export default { render };
