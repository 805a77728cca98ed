// The explorer's browser half. Python sends `_data` once; while a divider is dragged, everything shown is computed
// here, and equals what pipelab says. pipelab/viz/modules.py joins these files into one module:
//
//   numbers, model, costs, schedules, replay, prediction (data) -> dom, layout -> panes -> explorer
//
// The view holds what the user looks at; panes read it. Text from the model is only ever set through textContent.

import { LEVELS, Model } from "./model.js";
import { Costs } from "./costs.js";
import { Ruler, el } from "./dom.js";
import { Arcs } from "./arcs.js";
import { Card } from "./card.js";
import { Controls, Hint } from "./controls.js";
import { Dividers } from "./dividers.js";
import { GraphPane } from "./graph.js";
import { Help, Menu } from "./menu.js";
import { letThrough, pressed } from "./keys.js";
import { Ribbon } from "./ribbon.js";
import { predict } from "./prediction.js";
import { Running } from "./running.js";
import { Splits } from "./splits.js";
import { StageBoxes } from "./boxes.js";
import { ThresholdForm } from "./threshold.js";
import { Footer, Title } from "./title.js";
import { TimelinePane } from "./timeline.js";
import { Verdict } from "./verdict.js";
import { ranksOf } from "./schedules.js";
import { hideStills } from "./still.js";

class View {
  constructor(traits, host) {
    this.traits = traits;
    this.host = host;
    this.id = `pl-${Math.random().toString(36).slice(2, 10)}`;
    this.colours = traits.get("_colours");
    this.connected = traits.get("_connected");
    this.refusal = traits.get("_run_refusal");
    this.data = traits.get("_data");
    this.model = new Model(this.data);
    this.ruler = new Ruler();
    this.ruler.use(host);
    this.listening = new AbortController();
    this.cuts = [...traits.get("cuts")];
    this.level = LEVELS.find((level) => this.model.byLevel[level].length >= Math.max(1, this.cuts.length)) ?? "op";
    Object.assign(this, { drag: null, shown: null, stepped: null, note: null, graphOpen: false, zoom: [0, 1], byKeys: true });
    this.readCosts();
    this.widthBy = this.widths[0];
    this.report = this.saved = traits.get("_report_state");
    this.running = new Running(this);
    this.splits = new Splits(this);
    this.dividers = new Dividers(this);
    this.build();
    this.wire();
  }

  // --- what Python says

  get numMicrobatches() {
    return this.traits.get("num_microbatches");
  }

  get training() {
    return this.traits.get("train") ?? false;
  }

  /** The order of work; without a way back all orders are fill-drain. */
  get schedule() {
    return this.training ? this.traits.get("schedule") : "gpipe";
  }

  /** Ranks of the schedule; `num_ranks` is for as many stages as Python knows of. */
  get numRanks() {
    const asked = this.traits.get("num_ranks");
    const count = this.cuts.length + 1;
    return ranksOf(this.schedule, count, count % asked === 0 ? asked : null);
  }

  /** The runs of the trace that is shown, each with its index among all runs. */
  get reports() {
    const runs = (this.traits.get("_reports") ?? []).map((run, index) => ({ ...run, index }));
    return runs.filter(({ workload }) => workload === this.traits.get("_workload"));
  }

  get pins() {
    return this.splits.pins;
  }

  readCosts() {
    this.presets = this.traits.get("_presets");
    this.mostStages = Math.max(...Object.values(this.presets).map((policy) => policy.length - 1));
    this.costs = new Costs(this.model, this.traits.get("_costs"));
    // What pieces can be as wide as: nothing is as wide as what there is none of.
    const is = { params: this.data.weights.length > 0, flops: this.costs.state.flops_before.at(-1) > 0, time: this.costs.timed };
    this.widths = Object.keys(is).filter((by) => is[by]);
    if (!this.widths.length) this.widths = ["params"];
    if (!this.widths.includes(this.widthBy)) [this.widthBy] = this.widths;
  }

  // --- the page

  build() {
    const { data } = this;
    this.help = new Help(this);
    this.menu = new Menu(this);
    this.verdict = new Verdict(this);
    this.hint = new Hint(this);
    this.ribbon = new Ribbon(this);
    this.graph = new GraphPane(this);
    this.card = new Card(this);
    this.boxes = new StageBoxes(this);
    this.arcs = new Arcs(this);
    this.timeline = new TimelinePane(this);
    this.form = new ThresholdForm(this);
    this.controls = new Controls(this);
    this.title = new Title(this);
    this.footer = new Footer(this);
    const { ribbon, graph, boxes, arcs, timeline, controls, form } = this;
    this.panes = [ribbon, graph, boxes, arcs, this.card, timeline, controls, this.hint, this.menu, this.verdict, this.title, this.footer];
    this.root = el("div", { class: "pl-explorer", role: "group", "aria-label": `Pipeline explorer: ${data.model}`, tabindex: "-1" });
    this.root.dataset.lmSuppressShortcuts = "true";
    const shown = [this.title, this.help, this.menu, this.verdict, this.hint, ribbon, graph, boxes, arcs, timeline, controls, form, this.footer];
    this.root.append(...shown.map(({ node }) => node));
    this.host.classList.add("pl-host");
    this.host.replaceChildren(this.root);
  }

  wire() {
    const { traits, root } = this;
    const { signal } = this.listening;
    // Whether the mouse or the keyboard has the last word on what is shown.
    root.addEventListener("keydown", () => { this.byKeys = true; }, { signal, capture: true });
    root.addEventListener("pointerdown", () => { this.byKeys = false; }, { signal, capture: true });
    window.addEventListener("keydown", (event) => letThrough(root, event), { signal, capture: true });
    root.addEventListener("keydown", (event) => {
      if (!pressed(this, event)) return;
      event.preventDefault();
      event.stopPropagation();
    }, { signal });
    this.hint.node.addEventListener("pointerenter", () => !this.drag && this.show(null), { signal });
    this.listeners = {
      "change:cuts": () => this.hearCuts(),
      "change:value": () => this.hearValue(),
      ...Object.fromEntries(["num_microbatches", "train", "schedule", "num_ranks", "_hardware"].map((name) => [`change:${name}`, () => this.hearQuestion()])),
      "change:_reports": () => this.layout(),
      "change:_costs": () => {
        this.readCosts();
        this.layout();
      },
      "change:_hardwares": () => this.paint(),
      "change:_run_state": () => {
        this.running.hear();
        this.note = null;
        this.paint();
      },
      "change:_report_state": () => {
        this.report = traits.get("_report_state");
        this.layout();
      },
      "msg:custom": (message, buffers) => this.hear(message, buffers),
    };
    // A change of the model makes this view a thing of the past: `render` draws another.
    for (const [event, listener] of Object.entries(this.listeners)) {
      this.listeners[event] = (...args) => traits.get("_data") === this.data && listener(...args);
      traits.on(event, this.listeners[event]);
    }
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 50 && width !== this.width) this.layout(width);
    });
    this.observer.observe(this.ribbon.node);
  }

  destroy() {
    this.listening.abort();
    this.observer.disconnect();
    for (const part of [this.dividers, this.splits, this.running, this.form]) part.stop();
    for (const [event, listener] of Object.entries(this.listeners)) this.traits.off(event, listener);
  }

  // --- drawing

  layout(width = this.width ?? 872) {
    this.width = width;
    this.root.classList.toggle("pl-slim", width < 800);
    this.ruler.use(this.root);
    this.compute();
    for (const pane of this.panes) pane.layout?.(width);
    this.paint();
  }

  paintOrLayout() {
    if (this.stages.length === this.cuts.length + 1) this.paint();
    else this.layout();
    // What is told of a cut is told of where it is now.
    const { kind, index } = this.shown ?? {};
    if (kind === "cut" && !this.drag) this.show(...(index < this.cuts.length ? [kind, index] : [null]));
  }

  compute() {
    const { cuts, costs } = this;
    this.stages = costs.stages(cuts, this);
    this.optimum = cuts.length ? (costs.state.optima[this.stages.length] ?? null) : null;
    const { schedule, training, numRanks } = this;
    if (this.stepped >= costs.state.num_microbatches) this.stepped = null;
    const asked = [costs, cuts, schedule, training, numRanks];
    if (this.predicted?.every((what, index) => what === asked[index])) return;
    this.predicted = asked;
    const found = predict(costs, cuts, { schedule, training, numRanks });
    this.prediction = found.error ? null : found;
    this.impossible = found.error;
  }

  paint() {
    this.compute();
    for (const pane of this.panes) pane.paint();
    // Faded while the costs of another number of micro-batches are on their way.
    this.root.classList.toggle("pl-late", this.costs.state.num_microbatches !== this.numMicrobatches);
  }

  // --- what the user looks at

  setLevel(level) {
    this.level = level;
    this.layout();
  }

  setWidthBy(by) {
    this.widthBy = by;
    this.layout();
  }

  setZoom(zoom) {
    this.zoom = zoom;
    for (const pane of [this.ribbon, this.graph]) pane.layout(this.width);
    this.paint();
  }

  setStep(microbatch) {
    this.stepped = this.prediction ? microbatch : null;
    this.layout();
  }

  toggleGraph() {
    this.graphOpen = !this.graphOpen;
    this.layout();
  }

  /** Tell the story of a stage, a cut or a piece; null ends it. */
  show(kind, index) {
    this.shown = kind && { kind, index };
    this.ribbon.showTip(kind === "cut" ? index : null);
    this.card.follow();
  }

  /** Draw a run under what is predicted; null draws none. A saved page has the one it was saved with. */
  showReport(index) {
    if (this.connected) this.send({ type: "show_report", index });
    else this.traits.set("_report_state", index === null ? null : this.saved);
  }

  /** Esc closes the innermost of what is open; false if there is nothing. */
  leave() {
    const open = [this.menu, this.help].find((panel) => panel.open);
    if (this.stepped !== null) this.setStep(null);
    else if (open) open.toggle();
    else if (this.card.close() || this.shown) this.show(null);
    else if (this.graphOpen) this.toggleGraph();
    else return false;
    return true;
  }

  /** Say a sentence instead of the verdict, until the split moves. */
  tell(text, action, kind = "refused") {
    this.note = { kind, text, action };
    this.paint();
  }

  // --- the split, for the panes

  commit(cuts) {
    this.splits.commit(cuts);
  }

  addCut(position) {
    this.splits.add(position);
  }

  removeCut(index) {
    this.splits.remove(index);
  }

  togglePin(index) {
    this.splits.togglePin(index);
  }

  // --- Python

  hearCuts() {
    const cuts = [...this.traits.get("cuts")];
    if (this.drag || cuts.join() === this.cuts.join()) return;
    this.cuts = cuts;
    this.splits.changed();
    this.paintOrLayout();
  }

  /** The split is this now, and can be undone; `cuts` also change with each step of another view's drag. */
  hearValue() {
    const cuts = [...this.traits.get("value")];
    if (this.drag || cuts.join() === this.splits.committed.join()) return;
    if (cuts.join() !== this.cuts.join()) this.splits.changed(); // it may come before the cuts
    this.splits.take(cuts);
    this.paintOrLayout();
  }

  /** Something else is asked of the split: what was told of it before is past. */
  hearQuestion() {
    this.note = null;
    this.running.dismiss();
    this.layout();
  }

  /** An answer; another view's is not for this one. */
  hear(message, buffers) {
    if (message.view !== this.id) return;
    const heard = {
      threshold: () => this.form.hear(message),
      optimal: () => this.splits.hearOptimal(message),
      export: () => this.menu.hearExport(message),
      save: () => this.menu.hearSaved(message, buffers),
    };
    heard[message.type]?.();
  }

  /** Set traits that Python answers. */
  tellPython(values) {
    for (const [name, value] of Object.entries(values)) this.traits.set(name, value);
    this.traits.save_changes();
    this.layout();
  }

  /** The next number of micro-batches, less or more; a saved page knows what some of them cost. */
  microbatchesBeside(change) {
    const held = Object.keys(this.traits.get("_by_microbatches") ?? {}).map(Number);
    const numbers = this.connected ? [this.numMicrobatches + change] : change < 0 ? held.reverse() : held;
    return numbers.find((n) => (n - this.numMicrobatches) * change > 0 && n >= 1 && n <= this.data.batch_size);
  }

  changeMicrobatches(change) {
    this.tellPython({ num_microbatches: this.microbatchesBeside(change) });
  }

  /** Send Python a message; false, and Run is off, if the kernel that made this explorer is gone. */
  send(message) {
    try {
      this.traits.send({ ...message, view: this.id });
    } catch {
      this.refusal = "Not connected: dragging works, Run does not. Run the cell again.";
      this.running.lose();
      this.paint();
      return false;
    }
    return true;
  }
}

function render({ model, el: host }) {
  let view;
  const showStills = hideStills(model.get("_still"));
  const draw = () => {
    view?.destroy();
    view = new View(model, host);
    view.layout();
    view.root.dataset.ready = "1";
  };
  draw();
  model.on("change:_data", draw);
  return () => {
    model.off("change:_data", draw);
    view.destroy();
    showStills();
  };
}

export default { render };
