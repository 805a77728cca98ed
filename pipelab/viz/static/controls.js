// The row of controls: how many stages and micro-batches, the policies, Run.

import { LEVELS } from "./model.js";
import { OWN_KEYS, button, el, set } from "./dom.js";
import { cutsOf } from "./splits.js";

const WIDTH_NAMES = { params: "parameters", flops: "FLOPs", time: "time" };

/** Do what changes the page's height, and scroll by as much: the pointer is still over the button. */
function stayUnderHand(node, change) {
  const before = node.getBoundingClientRect().top;
  change();
  let scroller = node.parentElement;
  while (scroller && !(/auto|scroll/.test(getComputedStyle(scroller).overflowY) && scroller.scrollHeight > scroller.clientHeight)) {
    scroller = scroller.parentElement;
  }
  (scroller ?? document.scrollingElement).scrollTop += node.getBoundingClientRect().top - before;
}

export class Controls {
  constructor(view) {
    this.view = view;
    const { splits } = view;
    this.stages = this.stepper("Stages", "stage", (change) => splits.changeStages(change));
    this.microbatches = this.stepper("Micro-batches", "micro-batch", (change) => view.changeMicrobatches(change));
    const policy = (name) => () => splits.use(name, view.cuts.length + 1);
    this.uniform = this.press("Uniform", "The same number of blocks in each stage", policy("uniform"));
    this.equal = this.press("Equal size", "PiPPy's greedy policy: equal parameters, the last stage takes the rest", policy("equal_size"));
    this.threshold = this.press("Threshold…", "At most so many parameters per stage", () => view.form.toggle());
    this.optimal = this.press("Optimal", "", policy("optimal"));
    if (!view.connected) {
      set(this.threshold, { disabled: true, title: "A saved page cannot answer this" });
      set(this.microbatches.node, { title: "A saved page knows those that divide the batch" });
    }
    // The second click of a double one would cancel.
    this.run = this.press("Run", "", ({ detail }) => detail < 2 && view.running.press());
    this.run.classList.add("pl-run");
    this.refusal = el("span", { class: "pl-refusal" });
    const policies = el("div", { class: "pl-segments", role: "group", "aria-label": "Split" });
    policies.append(this.uniform, this.equal, this.threshold, this.optimal);
    const field = (label, ...nodes) => el("div", { class: "pl-field" }, el("span", { class: "pl-label", text: label }), ...nodes);
    const fields = [field("Stages", this.stages.node), field("Micro-batches", this.microbatches.node), field("Split", policies)];
    this.node = el("div", { class: "pl-controls" }, ...fields, this.run, this.refusal);
  }

  press(text, title, run) {
    const node = button(text, { title });
    node.onclick = run;
    return node;
  }

  stepper(label, noun, change) {
    const less = button("−", { "aria-label": `Fewer ${noun}${noun.endsWith("ch") ? "es" : "s"}` });
    const more = button("+", { "aria-label": `More ${noun}${noun.endsWith("ch") ? "es" : "s"}` });
    const output = el("output", { "aria-label": label });
    less.onclick = () => stayUnderHand(less, () => change(-1));
    more.onclick = () => stayUnderHand(more, () => change(1));
    return { less, more, output, node: el("div", { class: "pl-stepper", role: "group", "aria-label": label }, less, output, more) };
  }

  paint() {
    const { view } = this;
    const { cuts, presets } = view;
    const count = cuts.length + 1;
    this.stages.output.textContent = `${count}`;
    this.stages.less.disabled = count <= 1;
    this.stages.more.disabled = count >= view.mostStages;
    this.microbatches.output.textContent = `${view.numMicrobatches}`;
    this.microbatches.less.disabled = !view.microbatchesBeside(-1);
    this.microbatches.more.disabled = !view.microbatchesBeside(1);
    const same = (policy) => cutsOf(policy, count)?.join() === cuts.join();
    for (const [one, other] of [["less", "more"], ["more", "less"]]) {
      for (const stepper of [this.stages, this.microbatches]) {
        // A button that is off hears no keys.
        if (stepper[one].disabled && stepper[one].matches(":focus")) stepper[other].focus();
      }
    }
    set(this.uniform, { "aria-pressed": `${same(presets.uniform)}` });
    set(this.equal, { "aria-pressed": `${same(presets.equal_size)}` });
    set(this.optimal, { "aria-pressed": `${this.isOptimal(same)}`, title: this.aim() });
    set(this.threshold, { "aria-expanded": `${!view.form.node.hidden}` });
    this.paintRun();
  }

  /** Between modules and ops, and around pins, only the kernel knows the optimum. */
  isOptimal(same) {
    const { level, connected, splits, presets } = this.view;
    return splits.isAnswer || ((level === "block" || !connected) && same(presets.optimal));
  }

  aim() {
    const { view } = this;
    const what = view.costs.timed ? "time of the slowest stage" : "parameters of the largest stage";
    const pins = view.pins.size ? " with the pinned dividers where they are" : "";
    return `The least ${what}: no split between ${view.connected ? view.level : "block"}s has less${pins}`;
  }

  paintRun() {
    const { running, refusal } = this.view;
    const bound = running.active && !running.cancellable;
    this.run.textContent = running.active ? "Cancel" : "Run";
    this.run.classList.toggle("pl-cancel", running.active);
    this.run.disabled = running.active ? bound : Boolean(refusal);
    this.run.title = bound ? "Started by a cell: interrupt the kernel to stop it" : "";
    this.refusal.textContent = refusal;
    this.refusal.hidden = !refusal;
  }
}

/** The line above the ribbon: between what dividers cut, and what the pieces' widths say. */
export class Hint {
  constructor(view) {
    this.view = view;
    const name = (by) => WIDTH_NAMES[by];
    this.level = this.choice("Cut between", LEVELS, (level) => `${level}s`, (level) => view.setLevel(level));
    for (const option of this.level.options) option.disabled = !view.model.byLevel[option.value].length;
    this.width = this.choice("Width by", Object.keys(WIDTH_NAMES), name, (by) => view.setWidthBy(by));
    const left = view.data.cuts.positions.length
      ? el("label", { text: "Drag ◆ to cut between " }, this.level)
      : el("span", { text: "There is no place where this model can be cut." });
    this.node = el("div", { class: "pl-hint" }, left, el("label", { text: "width: " }, this.width));
  }

  choice(label, values, text, choose) {
    const node = el("select", { ...OWN_KEYS, "aria-label": label });
    for (const value of values) node.append(el("option", { value, text: text(value) }));
    node.onchange = () => choose(node.value);
    return node;
  }

  layout() {
    for (const option of this.width.options) option.disabled = !this.view.widths.includes(option.value);
  }

  paint() {
    this.level.value = this.view.level;
    this.width.value = this.view.widthBy;
  }
}
