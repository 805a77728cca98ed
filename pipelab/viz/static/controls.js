// The row of controls, and what the keys are.

import { LEVELS } from "./model.js";
import { OWN_KEYS, button, el, set } from "./dom.js";

export class Controls {
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

  paint() {
    const { view } = this;
    const { cuts } = view;
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
export const cutsOf = (policy, count) => (Array.isArray(policy[count]) ? policy[count] : undefined);

export const HELP = [
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
