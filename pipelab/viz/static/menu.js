// What is one click away: behind "?" the help, behind "⋯" everything that the closed explorer does not show.

import { HELP } from "./keys.js";
import { OWN_KEYS, button, el, keep, set } from "./dom.js";
import { SCHEDULE_NAMES } from "./schedules.js";

const FILE_KINDS = [["html", "Web page"], ["png", "PNG"], ["svg", "SVG"], ["plan", "Plan"], ["report", "Report"], ["trace", "Perfetto trace"]];
const SCHEDULES = Object.entries(SCHEDULE_NAMES).map(([name, { text, alone = text }]) => [name, alone]);
const SYSTEMS = [["vllm", "vLLM"], ["megatron", "Megatron-LM"], ["device_map", "accelerate"], ["torch", "torch"]];

/** A panel that a button in the title row opens. */
class Panel {
  constructor(view, sign, name, node) {
    this.view = view;
    this.node = set(node, { id: `${view.id}-${name.toLowerCase()}`, hidden: true });
    this.button = button(sign, { class: "pl-icon", "aria-label": name, title: name, "aria-expanded": "false", "aria-controls": node.id });
    this.button.onclick = () => this.toggle();
  }

  get open() {
    return !this.node.hidden;
  }

  toggle() {
    this.node.hidden = this.open;
    set(this.button, { "aria-expanded": `${this.open}` });
    this.paint();
  }

  paint() {}
}

export class Help extends Panel {
  constructor(view) {
    super(view, "?", "Help", el("dl", { class: "pl-help" }));
    for (const [term, text] of HELP) this.node.append(el("dt", { text: term }), el("dd", { text }));
  }
}

export class Menu extends Panel {
  constructor(view) {
    super(view, "⋯", "More", el("div", { class: "pl-menu" }));
    this.graph = this.toggler("Graph", "What flows between blocks, modules and ops (G)", () => view.toggleGraph());
    this.step = this.toggler("Step through", "The timeline one micro-batch at a time (M)", () => view.setStep(view.stepped === null ? 0 : null));
    this.keep = this.toggler("Keep to compare", "Draw this split dashed beside the next ones (K)", () => view.splits.keep());
    this.row("Show", this.graph, this.step, this.keep);
    this.buildTimes();
    if (view.connected) this.buildTakeAway();
  }

  buildTimes() {
    const { view } = this;
    const { connected } = view;
    this.inference = button("Inference");
    this.training = button("Training");
    this.inference.onclick = () => view.tellPython({ train: false });
    this.training.onclick = () => view.tellPython({ train: true });
    if (view.data.caches.length) set(this.training, { disabled: true, title: "A decode step has no way back" });
    this.schedule = this.choice("Schedule", SCHEDULES, (schedule) => view.tellPython({ schedule }));
    const work = el("div", { class: "pl-segments", role: "group", "aria-label": "Work" }, this.inference, this.training);
    this.row("Work", work, this.schedule);
    this.hardware = this.choice("Hardware", [], (name) => view.tellPython({ _hardware: name }));
    const measure = button("Measure this machine", { title: "Time every op here, in processes of its own" });
    measure.onclick = () => view.running.ask({ type: "measure" });
    this.row("Times of", this.hardware, ...(connected && !view.refusal ? [measure] : []));
    set(this.hardware, connected ? {} : { disabled: true, title: "A saved page keeps its times" });
  }

  /** Open at the question what times are of. */
  chooseHardwareHere() {
    if (!this.open) this.toggle();
    this.hardware.focus();
    this.hardware.scrollIntoView({ block: "nearest" });
  }

  buildTakeAway() {
    const { view } = this;
    this.files = FILE_KINDS.map(([what, text]) => [what, this.plain(text, () => view.send({ type: "save", what }))]);
    this.row("Save", ...this.files.map(([, node]) => node));
    this.lines = SYSTEMS.map(([system, text]) => [system, this.toggler(text, "", () => this.askLine(system))]);
    this.row("Launch line", ...this.lines.map(([, node]) => node));
    this.code = el("pre", { class: "pl-code", tabindex: "0", hidden: true, "aria-label": "Launch line", ...OWN_KEYS });
    this.node.append(this.code);
  }

  /** Ask Python for the line that starts this split elsewhere. */
  askLine(system) {
    this.system = system;
    this.asked = this.view.cuts;
    this.view.send({ type: "export", system });
    this.paint();
  }

  row(label, ...nodes) {
    this.node.append(el("span", { class: "pl-label", text: label }), el("div", { class: "pl-menu-row" }, ...nodes));
  }

  plain(text, run, title) {
    const node = button(text, { title });
    node.onclick = run;
    return node;
  }

  toggler(text, title, run) {
    return set(this.plain(text, run, title), { "aria-pressed": "false" });
  }

  choice(label, options, choose) {
    const node = el("select", { "aria-label": label, ...OWN_KEYS });
    for (const [value, text] of options) node.append(el("option", { value, text }));
    node.onchange = () => choose(node.value);
    return node;
  }

  paint() {
    if (!this.open) return;
    const { view } = this;
    set(this.graph, { "aria-pressed": `${view.graphOpen}` });
    set(this.step, { "aria-pressed": `${view.stepped !== null}`, disabled: !view.prediction });
    set(this.keep, { "aria-pressed": `${view.splits.kept !== null}` });
    set(this.inference, { "aria-pressed": `${!view.training}` });
    set(this.training, { "aria-pressed": `${view.training}` });
    this.schedule.hidden = !view.training;
    this.schedule.value = view.traits.get("schedule");
    this.paintHardware();
    for (const [what, node] of this.files ?? []) if (what === "report") node.disabled = !view.report;
    for (const [system, node] of this.lines ?? []) set(node, { "aria-pressed": `${system === this.system}` });
    if (this.system && !view.drag && this.asked !== view.cuts) this.askLine(this.system);
  }

  /** The devices one can choose; a measured machine and hardware named in code join them later. */
  paintHardware() {
    const choices = this.view.traits.get("_hardwares") ?? [];
    const options = keep(this.hardware, choices.length, () => el("option"));
    for (const [index, { name, text }] of choices.entries()) {
      if (options[index].textContent !== text) set(options[index], { value: name, text });
    }
    this.hardware.value = this.view.traits.get("_hardware") ?? "";
  }

  hearExport({ text, error }) {
    this.code.hidden = false;
    this.code.textContent = error ?? text;
  }

  /** Hand a file to the browser. */
  hearSaved({ name, mime, error }, buffers) {
    if (error) {
      this.view.tell(error);
      return;
    }
    const url = URL.createObjectURL(new Blob(buffers, { type: mime }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}
