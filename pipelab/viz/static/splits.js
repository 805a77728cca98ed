// What changes the split: hands, policies, pins, undo. Python hears `cuts` while a divider moves, `value` on release.

import { dearest } from "./costs.js";
import { plural } from "./numbers.js";

const THROTTLE_MS = 60;

/** A policy's cuts for so many stages; undefined where it refuses. */
export const cutsOf = (policy, count) => (Array.isArray(policy[count]) ? policy[count] : undefined);

export class Splits {
  constructor(view) {
    this.view = view;
    this.past = [];
    this.future = [];
    this.kept = null;
    this.pins = new Set();
    this.committed = view.cuts;
  }

  /** The user moved the split: refusals and the last run's sentence no longer speak of it. */
  changed() {
    this.view.note = null;
    this.before = null;
    this.view.running.dismiss();
  }

  /** A divider moves under the hand. */
  moveLive(cuts) {
    this.view.cuts = cuts;
    this.changed();
    this.sendSoon();
    this.view.paint();
  }

  sendSoon() {
    if (this.timer) return;
    const { view } = this;
    const send = () => {
      this.timer = undefined;
      if (this.sent === view.cuts) return;
      this.sent = view.cuts;
      view.traits.set("cuts", view.cuts);
      view.traits.save_changes();
      this.timer = setTimeout(send, THROTTLE_MS);
    };
    send();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  commit(cuts) {
    const { traits } = this.view;
    this.stop();
    this.take([...cuts]);
    traits.set("cuts", this.committed);
    traits.set("value", this.committed);
    traits.set("num_stages", cuts.length + 1);
    traits.save_changes();
    this.view.paintOrLayout();
  }

  /** The split is this now, whoever says so. */
  take(cuts) {
    if (cuts.join() !== this.committed.join()) {
      this.past.push({ cuts: this.committed, pins: this.pins });
      this.future = [];
    }
    this.committed = this.view.cuts = cuts;
    this.pins = new Set([...this.pins].filter((pin) => cuts.includes(pin)));
  }

  // --- there and back

  undo() {
    this.travel(this.past, this.future);
  }

  redo() {
    this.travel(this.future, this.past);
  }

  travel(from, to) {
    const there = from.pop();
    if (!there) return;
    to.push({ cuts: this.committed, pins: this.pins });
    this.changed();
    this.pins = there.pins;
    this.committed = there.cuts; // known already: commit must not note it as new
    this.commit(there.cuts);
  }

  // --- one divider more, less, fixed

  add(position) {
    const { cuts, model } = this.view;
    if (cuts.includes(position) || !model.cutIndex.has(position)) return;
    this.changed();
    this.commit([...cuts, position].sort((a, b) => a - b));
  }

  /** A divider where it helps the dearest stage most. */
  addWhereItHelps() {
    const { view } = this;
    const { start, stop } = dearest(view.stages);
    const count = view.stages.length + 1;
    const larger = (cut) => Math.max(view.costs.stageCost(start, cut, count), view.costs.stageCost(cut, stop, count));
    const places = view.model.byLevel[view.level].filter((cut) => cut > start && cut < stop);
    if (!places.length) {
      view.tell(`There is no place between ${view.level}s to cut stage ${dearest(view.stages).index}.`);
      return;
    }
    const costs = places.map(larger);
    this.add(places[costs.indexOf(Math.min(...costs))]);
  }

  remove(index) {
    this.changed();
    this.commit(this.view.cuts.filter((_, at) => at !== index));
  }

  togglePin(index) {
    const cut = this.view.cuts[index];
    const pins = new Set(this.pins);
    if (!pins.delete(cut)) pins.add(cut);
    this.pins = pins;
    this.view.paint();
  }

  // --- policies

  use(name, count) {
    const { view } = this;
    if (name === "optimal" && (this.pins.size || view.level !== "block") && view.connected) {
      this.askOptimal(count);
      return;
    }
    if (name === "optimal" && this.pins.size) {
      view.tell("Only the kernel can optimise around pinned dividers: unpin them, or open the explorer in a notebook.");
      return;
    }
    const policy = view.presets[name];
    const cuts = policy[count] ?? `More than ${view.mostStages} stages are set from code.`;
    this.changed();
    if (Array.isArray(cuts)) {
      this.policy = name;
      this.commit(cuts);
      if (cuts.length + 1 < count) {
        view.tell(`Equal size leaves the last of ${plural(count, "stage")} empty: ${cuts.length + 1} are shown.`);
      }
    } else {
      const below = policy.slice(0, count).findLastIndex(Array.isArray);
      // Memory may want more stages instead.
      const works = below > 0 ? below : policy.findIndex((found, n) => n > count && Array.isArray(found));
      view.tell(cuts, works > 0 ? { text: `Use ${works}`, run: () => this.use(name, works) } : undefined);
    }
  }

  /** What the kernel is asked; all else that the answer rests on are the costs. */
  question(count) {
    return { pins: [...this.pins].sort((a, b) => a - b), level: this.view.level, num_stages: count };
  }

  /** Whether the split is what the kernel would answer if it were asked now. */
  get isAnswer() {
    const { answer, view } = this;
    if (answer?.costs !== view.costs || answer.cuts.join() !== view.cuts.join()) return false;
    return answer.asked === JSON.stringify(this.question(view.cuts.length + 1));
  }

  /** The exact planner answers what no table holds: around pins, between modules or ops. */
  askOptimal(count) {
    const { view } = this;
    const question = this.question(count);
    if (view.send({ type: "optimal", ...question })) {
      this.asked = JSON.stringify(question);
      view.tell("Looking for the best split…", undefined, "progress");
    }
  }

  hearOptimal({ cuts, error }) {
    if (this.view.drag) return; // the hand was quicker
    this.changed();
    if (error) {
      this.view.tell(error);
      return;
    }
    const before = this.committed;
    this.policy = "optimal";
    this.answer = { cuts, asked: this.asked, costs: this.view.costs };
    this.commit(cuts);
    this.offerWayBack(before);
  }

  /** Offer to undo what one button did. */
  offerWayBack(before) {
    if (before.join() !== this.committed.join()) this.before = before;
    this.view.paint();
  }

  /** Fewer or more stages, by the policy that is pressed, else the one used last, else uniform. */
  changeStages(change) {
    const { presets, cuts } = this.view;
    const count = cuts.length + 1;
    const joined = cuts.join();
    const pressed = Object.keys(presets).filter((name) => cutsOf(presets[name], count)?.join() === joined);
    const policy = pressed.length && !pressed.includes(this.policy) ? pressed[0] : this.policy;
    this.use(policy ?? "uniform", count + change);
  }

  showOptimal() {
    const before = this.committed;
    this.use("optimal", before.length + 1);
    this.offerWayBack(before);
  }

  // --- the kept split

  /** Keep the split beside what comes; the same split again gives it up. */
  keep() {
    const { view } = this;
    const { cuts } = view;
    this.kept = this.kept?.join() === cuts.join() ? null : [...cuts];
    view.paint();
  }
}
