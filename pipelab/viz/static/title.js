// The first line and the last: what is shown, and what its times rest on.

import { plural } from "./numbers.js";
import { OWN_KEYS, button, el } from "./dom.js";

export class Title {
  constructor(view) {
    this.view = view;
    const { data, splits, help, menu } = view;
    this.back = this.icon("↶", "Undo", "Undo (Ctrl + Z)", () => splits.undo());
    this.forth = this.icon("↷", "Redo", "Redo (Ctrl + Y)", () => splits.redo());
    const name = el("strong", { class: "pl-name", text: data.model, title: data.model });
    const about = el("span", { class: "pl-about", text: data.about });
    const icons = el("span", { class: "pl-icons" }, this.back, this.forth, help.button, menu.button);
    this.node = el("div", { class: "pl-title" }, name, ...this.workloadChoice(), about, icons);
  }

  icon(sign, name, title, run) {
    const node = button(sign, { class: "pl-icon", "aria-label": name, title });
    node.onclick = run;
    return node;
  }

  /** Which of several traces is shown. */
  workloadChoice() {
    const { view } = this;
    const names = view.traits.get("_workloads") ?? [];
    if (names.length < 2) return [];
    const choice = el("select", { "aria-label": "Workload", ...OWN_KEYS });
    for (const name of names) choice.append(el("option", { value: name, text: name }));
    choice.value = view.traits.get("_workload");
    choice.onchange = () => view.tellPython({ _workload: choice.value });
    return [choice];
  }

  paint() {
    const { past, future } = this.view.splits;
    this.back.disabled = !past.length;
    this.forth.disabled = !future.length;
    for (const icon of [this.back, this.forth]) icon.hidden = !past.length && !future.length;
  }
}

export class Footer {
  constructor(view) {
    this.view = view;
    this.text = el("span");
    this.choose = button("Choose hardware…", { class: "pl-quiet", title: "Times, and memory, of a device or of this machine" });
    this.choose.onclick = () => view.menu.chooseHardwareHere();
    this.node = el("div", { class: "pl-rests" }, this.text, this.choose);
  }

  paint() {
    const { costs, connected } = this.view;
    const { device, rows, refusal } = costs.state;
    const times = device && `Times: ${device}; per micro-batch of ${plural(rows, "row")}, transfers included.`;
    this.text.textContent = refusal ? `No times: ${refusal}` : (times ?? "No hardware is named: sizes are compared, and the timeline goes by FLOPs.");
    this.choose.hidden = !connected || costs.timed;
  }
}
