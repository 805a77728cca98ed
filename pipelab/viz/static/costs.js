// What stages cost: parameters, or seconds and bytes on a device, as pipelab's planner counts them; the verdict.

import { fixed, formatBytes, formatCount, formatNeed, formatSeconds } from "./numbers.js";
import { Sizes } from "./model.js";

/**
 * What stages cost, as pipelab's planner counts it: seconds of a micro-batch on one kind of device, with what crosses
 * the stage's boundaries; parameters where there are no times.
 */
export class Costs {
  constructor(model, state) {
    this.model = model;
    this.state = state;
    this.timed = state.time_before !== undefined;
    if (this.timed) this.held = new Sizes(model.numOps, state.held);
  }

  /** The stages between these cuts, with `cost`; where there are times also its parts and the bytes it `needs`. */
  stages(cuts) {
    const stages = this.model.stages(cuts);
    return stages.map((stage) => (this.timed ? this.timedStage(stage, stages.length) : { ...stage, cost: stage.params }));
  }

  timedStage(stage, count) {
    const { time_before, alone_s, fixed_s, overlap, reserve_bytes } = this.state;
    const { start, stop } = stage;
    // A single stage has the machine to itself.
    const work = (count > 1 ? time_before[stop] - time_before[start] : alone_s) + fixed_s;
    const receive = this.transfer(start);
    const send = this.transfer(stop);
    const cost = overlap ? Math.max(work, receive, send) : receive + work + send;
    const needs = stage.bytes + this.held.between(start, stop) + this.peak(start, stop) + reserve_bytes;
    return { ...stage, work, receive, send, cost, needs };
  }

  /** Seconds to move what crosses a cut; the ends of the model are none. */
  transfer(position) {
    return this.state.transfer_s[this.model.cutIndex.get(position)] ?? 0;
  }

  peak(start, stop) {
    const { peak_bytes } = this.state;
    let most = 0;
    for (let op = start; op < stop; op++) most = Math.max(most, peak_bytes[op]);
    return most;
  }

  /** The stages that need more memory than their device has. */
  tooLarge(stages) {
    return this.timed ? stages.filter((stage) => stage.needs > this.state.memory_bytes) : [];
  }

  /** Where time is spent, or parameters are held, most; then what does not fit, or how far from the optimum that is. */
  verdict(stages, optimum) {
    const mean = stages.reduce((sum, stage) => sum + stage.cost, 0) / stages.length;
    if (!mean) return "The model has no parameters.";
    const { index, cost } = dearest(stages);
    const far = optimum ? ` ${distance(cost, optimum)}` : "";
    if (!this.timed) return `Stage ${index} holds ${formatCount(cost)} parameters, ${fixed(cost / mean, 2)} × the mean.${far}`;
    const tooLarge = this.tooLarge(stages);
    const is = stages.length > 1 ? "is the bottleneck:" : "takes";
    const text = `Stage ${index} ${is} ${formatSeconds(cost)} per micro-batch`;
    if (tooLarge.length) return `${text}. ${this.shortage(tooLarge)}`;
    return stages.length > 1 ? `${text}, the average is ${formatSeconds(mean)}.${far}` : `${text}.`;
  }

  shortage(tooLarge) {
    const { memory_bytes } = this.state;
    const [{ index, needs }] = tooLarge;
    if (tooLarge.length === 1) return `Stage ${index} needs ${formatNeed(needs, memory_bytes)}.`;
    const names = tooLarge.map((stage) => stage.index);
    const which = names.length > 3 ? `${names.length} stages` : `Stages ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
    return `${which} need more than ${formatBytes(memory_bytes)}.`;
  }
}

export const dearest = (stages) => stages.reduce((most, stage) => (stage.cost > most.cost ? stage : most));

/** Nobody measures less: between such splits there is nothing to choose. */
export const CLOSE = 0.005;

/** How far above the optimum a cost is, in words. */
export function distance(cost, optimum) {
  const above = cost / optimum - 1;
  const size = 100 * Math.abs(above);
  if (size < 1e-7) return "This is optimal.";
  if (size <= 100 * CLOSE) return `Optimal within ${100 * CLOSE}\u00a0%.`;
  const text = `${fixed(size, size < 9.95 ? 1 : 0)}\u00a0%`;
  return above > 0 ? `${text} above optimal.` : `${text} below the best split between blocks.`;
}
