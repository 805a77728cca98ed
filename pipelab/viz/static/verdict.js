// The sentence above the ribbon: what matters now, and the next step.

import { CLOSE, dearest } from "./costs.js";
import { percent } from "./numbers.js";
import { OWN_KEYS, button, el, set } from "./dom.js";

export class Verdict {
  constructor(view) {
    this.view = view;
    this.text = el("span");
    this.action = button("", { class: "pl-action", hidden: true });
    this.details = el("details", { class: "pl-details", hidden: true });
    this.details.append(el("summary", { text: "Details", ...OWN_KEYS }), el("pre", { tabindex: "0", ...OWN_KEYS }));
    this.line = el("div", { class: "pl-verdict", "aria-live": "polite" }, this.text, this.action);
    this.bar = el("div", { class: "pl-progress", hidden: true }, el("div"));
    this.node = el("div", {}, this.line, this.bar, this.details);
    // A traceback ends with what happened.
    this.details.ontoggle = () => { this.details.lastChild.scrollTop = this.details.lastChild.scrollHeight; };
    this.action.onclick = () => this.next?.run();
  }

  paint() {
    const { running, note, drag } = this.view;
    const { state } = running;
    const [kind, text] = this.told();
    if (this.text.textContent !== text) this.text.textContent = text;
    set(this.line, { "data-kind": kind, "aria-busy": `${drag !== null}` });
    this.next = note ? note.action : ["plan", "done"].includes(kind) ? this.wayToOptimal() : undefined;
    // Whoever pressed it goes on by keyboard.
    if (!this.next && this.action.matches(":focus")) this.view.root.focus();
    this.action.hidden = !this.next;
    this.action.textContent = this.next?.text ?? "";
    const active = state.phase === "running";
    this.bar.hidden = !active;
    this.bar.classList.toggle("pl-unknown", state.fraction === null);
    this.bar.firstChild.style.width = state.fraction === null ? "" : `${Math.round(100 * (state.fraction ?? 0))}%`;
    this.details.hidden = kind !== "failed" || !state.details;
    this.details.lastChild.textContent = state.details ?? "";
  }

  /** One line: a refusal, else progress, else how the run went, else the split's own verdict. */
  told() {
    const { running, note } = this.view;
    if (note) return [note.kind, note.text];
    if (running.active) return ["progress", running.pending ? "Asking the kernel…" : running.state.text];
    if (running.ended) return [running.state.phase, running.state.text];
    const { costs, stages, optimum, impossible, level } = this.view;
    if (impossible) return ["refused", impossible];
    return ["plan", [costs.verdict(stages, optimum, level), this.besideKept()].filter(Boolean).join(" ")];
  }

  /** How the split compares with the one that was kept. */
  besideKept() {
    const { costs, cuts, stages, splits } = this.view;
    const { kept } = splits;
    if (!kept) return "";
    if (kept.join() === cuts.join()) return "Kept to compare with.";
    const more = dearest(stages).cost / costs.dearestCost(kept) - 1;
    if (Math.abs(more) <= CLOSE) return "As good as the kept split.";
    return `${percent(Math.abs(more))} ${more > 0 ? "above" : "below"} the kept split.`;
  }

  /** A way to the optimum, where there is a better split, and back. */
  wayToOptimal() {
    const { costs, stages, optimum, splits } = this.view;
    if (splits.before) return { text: "Undo", run: () => splits.undo() };
    if (splits.isAnswer || (splits.pins.size && !this.view.connected)) return undefined;
    if (costs.tooLarge(stages).length) return this.wayToFit();
    // Between modules and ops only the kernel knows the best split.
    const unknown = this.view.level !== "block" && this.view.connected;
    if (!optimum || (!unknown && dearest(stages).cost <= optimum * (1 + CLOSE))) return undefined;
    return { text: splits.pins.size ? "Optimise around pins" : "Show optimal", run: () => splits.showOptimal() };
  }

  /** A split for which there is room: into as many stages, else into the fewest more. */
  wayToFit() {
    const { costs, presets, splits } = this.view;
    const fits = (cuts) => Array.isArray(cuts) && !costs.tooLarge(costs.stages(cuts, this.view)).length;
    const count = this.view.stages.length;
    const best = splits.pins.size ? "Optimise around pins" : "Show optimal";
    if (fits(presets.optimal[count])) return { text: best, run: () => splits.showOptimal() };
    const more = presets.optimal.findIndex((cuts, stages) => stages > count && fits(cuts));
    return more > 0 ? { text: `Use ${more} stages`, run: () => splits.use("optimal", more) } : undefined;
  }
}
