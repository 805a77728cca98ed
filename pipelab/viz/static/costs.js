// What stages cost: parameters, FLOPs, memory, and on a device seconds, of one micro-batch, as pipelab's Costs counts.

import { fixed, formatCount, formatNeed, formatSeconds, wholeBytes } from "./numbers.js";
import { Sizes } from "./model.js";
import { moveThatFits } from "./fitting.js";
import { mostInFlight, rankMemory } from "./memory.js";
import { scheduleActions } from "./schedules.js";

/**
 * What stages and cuts cost for one micro-batch, the largest: bytes and FLOPs always; where there is a device also
 * seconds, as pipelab's planner counts them with what crosses the stage's boundaries.
 */
export class Costs {
  constructor(model, state) {
    this.model = model;
    this.state = state;
    this.timed = state.time_before !== undefined;
    this.device = state.device ?? "";
    this.capacity = state.memory_bytes;
    this.rows = state.rows;
    this.buffers = new Sizes(model.numOps, state.buffers);
    this.caches = new Sizes(model.numOps, state.caches);
    this.peaks = new Peaks(state.peak_bytes);
    this.stashBefore = new Float64Array(model.numOps + 1);
    for (const [op, bytes] of state.stash_bytes.entries()) this.stashBefore[op + 1] = this.stashBefore[op] + bytes;
  }

  /**
   * The stages between these cuts: what each holds, its `cost`, the bytes it `needs` and of what they are made, and
   * whether the cut before it is `pinned`. In
   * training a schedule says of how many micro-batches a stage keeps activations, `inFlight` (else null); stages that
   * share a rank need its memory together.
   */
  stages(cuts, { training = false, schedule = "gpipe", numRanks = null, pins = new Set() } = {}) {
    const stages = this.model.stages(cuts).map((stage) => ({ ...stage, pinned: pins.has(stage.start) }));
    const ranks = numRanks ?? stages.length;
    const { orders } = scheduleActions(schedule, ranks, stages.length, this.state.num_microbatches, training);
    const inFlight = training ? (orders ? mostInFlight(orders, stages.length) : stages.map(() => 1)) : [];
    const found = stages.map((stage) => this.stage(stage, stages.length, inFlight[stage.index] ?? null));
    return orders && ranks < stages.length ? sharing(found, this.needsOfRanks(found, orders, training)) : found;
  }

  stage(stage, count, inFlight) {
    const { index, start, stop, params } = stage;
    const memory = this.memory(start, stop, inFlight);
    const flops = this.state.flops_before[stop] - this.state.flops_before[start];
    const held = { memory, needs: memory.total, inFlight, rank: index };
    return { ...stage, flops, ...held, ...this.seconds(start, stop, count, params) };
  }

  needsOfRanks(stages, orders, training) {
    const memories = stages.map(({ start, stop }) => this.memory(start, stop, training ? 1 : null));
    return rankMemory(memories, orders).peak_bytes;
  }

  /** Seconds of a stage and its parts; without times only its cost, which is its parameters. */
  seconds(start, stop, count, params) {
    if (!this.timed) return { cost: params, work: null, receive: null, send: null };
    const { time_before, alone_before, fixed_s, overlap } = this.state;
    // A single stage has the machine to itself.
    const before = count > 1 ? time_before : (alone_before ?? time_before);
    const work = before[stop] - before[start] + fixed_s;
    const receive = this.transfer(start);
    const send = this.transfer(stop);
    return { work, receive, send, cost: overlap ? Math.max(work, receive, send) : receive + work + send };
  }

  /** What a stage from `start` to `stop` would cost as one of `count`: seconds, or parameters. */
  stageCost(start, stop, count) {
    return this.seconds(start, stop, count, this.timed ? 0 : this.model.params.between(start, stop)).cost;
  }

  /** What the dearest stage between these cuts costs, of all or of those that count. */
  dearestCost(cuts, counts = () => true) {
    const edges = [0, ...cuts, this.model.numOps];
    let most = 0;
    for (let stage = 0; stage <= cuts.length; stage++) {
      if (counts(stage)) most = Math.max(most, this.stageCost(edges[stage], edges[stage + 1], edges.length - 1));
    }
    return most;
  }

  /**
   * Bytes that a device holds to run these ops, by kind; weights are parameters, buffers and constants. In training
   * also gradients, and all that is kept of the micro-batches in flight; null is inference.
   */
  memory(start, stop, inFlight = null) {
    const training = inFlight !== null;
    const parameters = this.model.bytes.between(start, stop);
    const weights = parameters + this.buffers.between(start, stop);
    const gradients = training ? parameters : 0;
    const stash = this.stashBefore[stop] - this.stashBefore[start];
    const activations = training ? inFlight * stash : this.peaks.between(start, stop);
    const caches = this.caches.between(start, stop);
    const reserve = this.state.reserve_bytes;
    const total = weights + gradients + activations + caches + reserve;
    return { weights, gradients, activations, caches, reserve, total };
  }

  /** Bytes that cross a cut; none at the ends of the model. */
  cutBytes(position) {
    return this.state.cut_bytes[this.model.cutIndex.get(position)] ?? 0;
  }

  /** Seconds to move them; none at the ends of the model. */
  transfer(position) {
    const { latency_s, link_bytes_per_s } = this.state;
    return this.model.cutIndex.has(position) ? latency_s + this.cutBytes(position) / link_bytes_per_s : 0;
  }

  fits(start, stop, inFlight) {
    return this.capacity === null || this.memory(start, stop, inFlight).total <= this.capacity;
  }

  /** The stages that need more memory than their device has. */
  tooLarge(stages) {
    return this.capacity === null ? [] : stages.filter((stage) => stage.needs > this.capacity);
  }

  /** The fewest blocks to move out of a stage over its memory so that it and its neighbour fit; null if none do. */
  wouldFit(stages, index = this.tooLarge(stages)[0]?.index) {
    return index === undefined ? null : moveThatFits(this, stages, index);
  }

  /** Where time is spent, or parameters are held, most; then what does not fit, or how far from the optimum that is. */
  verdict(stages, optimum, level = "block") {
    const mean = stages.reduce((sum, stage) => sum + stage.cost, 0) / stages.length;
    if (!mean) return "The model has no parameters.";
    const { index, cost } = dearest(stages);
    const far = optimum ? ` ${distance(cost, optimum, level)}` : "";
    const times = fixed(cost / mean, 2);
    if (!this.timed) return `Stage ${index} holds ${formatCount(cost)} parameters, ${times} × the mean.${far}`;
    const tooLarge = this.tooLarge(stages);
    const is = stages.length > 1 ? "is the bottleneck:" : "takes";
    const text = `Stage ${index} ${is} ${formatSeconds(cost)} per micro-batch`;
    if (tooLarge.length) return `${text}. ${this.shortage(stages, tooLarge)}`;
    return stages.length > 1 ? `${text}, the average is ${formatSeconds(mean)}.${far}` : `${text}.`;
  }

  shortage(stages, tooLarge) {
    const [{ index, rank, needs }] = tooLarge;
    const names = tooLarge.map((stage) => stage.index);
    const which = names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
    const move = names.length > 1 ? null : this.wouldFit(stages, index);
    const advice = move ? `: move ${move.label} to stage ${move.to}` : "";
    if (names.length === 1) return `Stage ${which} needs ${formatNeed(needs, this.capacity)}${advice}.`;
    const subject = names.length > 3 ? `${names.length} stages` : `Stages ${which}`;
    if (tooLarge.every((stage) => stage.rank === rank)) {
      return `${subject} together need ${formatNeed(needs, this.capacity)}.`;
    }
    return `${subject} need more than ${wholeBytes(this.capacity)}.`;
  }
}

/** The largest of any range of numbers at once: `levels[k][i]` is the largest of the 2^k from i on. */
class Peaks {
  constructor(values) {
    this.levels = [Float64Array.from(values)];
    for (let width = 1; 2 * width <= values.length; width *= 2) {
      const half = this.levels.at(-1);
      const level = new Float64Array(values.length - 2 * width + 1);
      for (let i = 0; i < level.length; i++) level[i] = Math.max(half[i], half[i + width]);
      this.levels.push(level);
    }
  }

  between(start, stop) {
    if (stop <= start) return 0;
    const rank = 31 - Math.clz32(stop - start);
    return Math.max(this.levels[rank][start], this.levels[rank][stop - 2 ** rank]);
  }
}

const sharing = (stages, needs) =>
  stages.map((stage) => ({ ...stage, rank: stage.index % needs.length, needs: needs[stage.index % needs.length] }));

export const dearest = (stages) => stages.reduce((most, stage) => (stage.cost > most.cost ? stage : most));

/** Nobody measures less: between such splits there is nothing to choose. */
export const CLOSE = 0.005;

/** How far above the optimum, the best split between blocks, a cost is, in words. */
function distance(cost, optimum, level = "block") {
  const above = cost / optimum - 1;
  const size = 100 * Math.abs(above);
  if (level !== "block" && size <= 100 * CLOSE) return "As good as the best split between blocks.";
  if (size < 1e-7) return "This is optimal.";
  if (size <= 100 * CLOSE) return `Optimal within ${100 * CLOSE}\u00a0%.`;
  const text = `${fixed(size, size < 9.95 ? 1 : 0)}\u00a0%`;
  return above > 0 ? `${text} above optimal.` : `${text} below the best split between blocks.`;
}
