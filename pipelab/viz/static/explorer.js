// The explorer's browser half. Python sends `_data` once; while a divider is dragged, everything shown is computed
// here, and equals what pipelab's Plan says. pipelab/viz/modules.py joins these files into one module:
//
//   numbers, model, costs (data) -> dom, layout -> panes (ribbon, boxes, arcs, timeline, controls) -> explorer
//
// Text from the model (names) is only ever set through textContent.

import { fixed, firstAtLeast, formatSeconds, plural } from "./numbers.js";
import { LEVELS, Model } from "./model.js";
import { CLOSE, Costs, dearest } from "./costs.js";
import { OWN_KEYS, Ruler, button, el, set } from "./dom.js";
import { Ribbon } from "./ribbon.js";
import { StageBoxes } from "./boxes.js";
import { Arcs } from "./arcs.js";
import { TimelinePane } from "./timeline.js";
import { Controls, HELP, cutsOf } from "./controls.js";

const THROTTLE_MS = 60;
const NO_ANSWER_MS = 4000;

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
    this.boxes = new StageBoxes(this);
    this.arcs = new Arcs(this);
    this.timeline = new TimelinePane(this);
    this.controls = new Controls(this);
    this.hint = el("div", { class: "pl-hint" });
    const width = el("span", { text: data.weights.length ? "width: parameters" : "" });
    if (data.cuts.positions.length) {
      this.hint.append(el("label", { text: "Drag ◆ to cut between " }, this.controls.level), width);
    } else this.hint.append(el("span", { text: "There is no place where this model can be cut." }), width);
    this.root = el("div", { class: "pl-explorer", role: "group", "aria-label": `Pipeline explorer: ${data.model}` });
    this.root.append(title, this.help, this.verdict, this.bar, this.details, this.hint, this.ribbon.node, this.boxes.node);
    this.rests = el("div", { class: "pl-rests" });
    this.root.append(this.arcs.node, this.timeline.node, this.controls.node, this.controls.form, this.rests);
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
    on(this.hint, "pointerenter", () => !this.drag && this.ribbon.showTip(null));
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
    for (const pane of [this.boxes, this.arcs, this.timeline]) pane.layout(width);
    this.paint();
  }

  paintOrLayout() {
    if (this.boxes.boxes.childElementCount === this.cuts.length + 1) this.paint();
    else this.layout();
  }

  paint() {
    this.stages = this.costs.stages(this.cuts);
    this.optimum = this.stages.length > 1 ? (this.costs.state.optima[this.stages.length] ?? null) : null;
    for (const pane of [this.ribbon, this.boxes, this.arcs, this.timeline, this.controls]) pane.paint();
    this.paintVerdict();
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
  paintVerdict() {
    const { run, note, stages, optimum } = this;
    const running = run.phase === "running";
    const ended = ["done", "failed", "cancelled", "refused"].includes(run.phase) && this.dismissed !== run;
    let kind = "plan";
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
    on("focus", () => this.ribbon.showTip(index));
    on("blur", () => this.ribbon.showTip(null));
    on("pointerenter", () => !this.drag && this.ribbon.showTip(index));
    on("pointerleave", () => !this.drag && !(this.byKeys && document.activeElement === handle) && this.ribbon.showTip(null));
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
      this.ribbon.showTip(index);
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
    this.ribbon.showTip(index);
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
    this.controls.paint();
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
