// "At most [41.2] M parameters per stage → 4 stages [Apply]": the number of stages is the kernel's answer.

import { plural } from "./numbers.js";
import { OWN_KEYS, button, el } from "./dom.js";

export class ThresholdForm {
  constructor(view) {
    this.view = view;
    this.input = el("input", { type: "number", min: "0", step: "any", "aria-label": "Million parameters per stage", ...OWN_KEYS });
    this.answer = el("span", { class: "pl-answer", "aria-live": "polite" });
    this.apply = button("Apply", { disabled: true });
    this.node = el("div", { class: "pl-threshold", hidden: true });
    this.node.append(el("span", { text: "At most" }), this.input, el("span", { text: "M parameters per stage" }), this.answer, this.apply);
    this.input.oninput = () => this.ask(Number(this.input.value) * 1e6);
    // In braces: a handler that returns false would take every other key from the field.
    this.input.onkeydown = (event) => {
      if (event.key === "Enter" && !this.apply.disabled) this.apply.click();
      if (event.key === "Escape") this.close();
    };
    this.apply.onclick = () => {
      view.splits.changed();
      view.commit(this.cuts);
    };
  }

  toggle() {
    this.node.hidden = !this.node.hidden;
    if (!this.node.hidden) {
      this.input.focus();
      this.ask(null);
    }
    this.view.controls.paint();
  }

  close() {
    this.toggle();
    this.view.controls.threshold.focus();
  }

  /** Ask Python for the stages a threshold needs; null asks for the smallest that keeps the number of stages. */
  ask(maxParams) {
    clearTimeout(this.timer);
    this.apply.disabled = true; // what it would apply is the answer to another question
    const ask = () => this.view.send({ type: "threshold", max_params: maxParams, num_stages: this.view.cuts.length + 1 });
    this.timer = setTimeout(ask, maxParams === null ? 0 : 200);
  }

  hear(message) {
    const { mostStages } = this.view;
    // In thousands, and not less than asked for: a number that people read.
    if (message.suggested) this.input.value = `${Math.ceil(message.suggested / 1e3) / 1e3}`;
    const count = (message.cuts?.length ?? 0) + 1;
    const drawn = count <= mostStages ? "" : `; up to ${mostStages} can be applied here`;
    this.answer.textContent = message.error ?? `→ ${plural(count, "stage")}${drawn}${message.note}`;
    this.apply.disabled = Boolean(message.error || drawn);
    this.cuts = message.cuts;
  }

  stop() {
    clearTimeout(this.timer);
  }
}
