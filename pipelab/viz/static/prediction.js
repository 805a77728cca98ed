// What a run of the cuts would do, as `pipelab.simulate` says it.

import { replay } from "./replay.js";
import { rankMemory } from "./memory.js";
import { scheduleActions } from "./schedules.js";

/**
 * The predicted timeline of a split: {rows, makespan_s, idle, rank_idle, unit}, and of each rank the bytes it holds
 * all the time and at most, `rank_bytes` and `peak_bytes`; or {error} where the schedule cannot be. `numRanks` null is
 * one rank per stage. The unit is "s"; where there are no times FLOPs stand in, and it is "share": of the largest
 * micro-batch through the whole model, with neither transfers nor shared cores.
 */
export function predict(costs, cuts, { schedule = "gpipe", training = false, numRanks = null } = {}) {
  const numStages = cuts.length + 1;
  const { num_microbatches } = costs.state;
  const { orders, error } = scheduleActions(schedule, numRanks ?? numStages, numStages, num_microbatches, training);
  if (error) return { error };
  const edges = [0, ...cuts, costs.model.numOps];
  const found = replay(orders, costs.timed ? timedWork(costs, edges, training) : sharesOfWork(costs, edges));
  if (found.error) return found;
  const rows = costs.timed ? found.rows : found.rows.map((events) => events.filter(([kind]) => kind !== "send"));
  const memories = edges.slice(1).map((stop, stage) => costs.memory(edges[stage], stop, training ? 1 : null));
  return { ...summary(rows), ...rankMemory(memories, orders), unit: costs.timed ? "s" : "share" };
}

/** Makespan and idle shares of rows of events. */
function summary(rows) {
  let makespan = 0;
  const busy = rows.map((events) => {
    let seconds = 0;
    for (const [kind, , , start, end] of events) {
      if (kind !== "send") seconds += end - start;
      if (end > makespan) makespan = end;
    }
    return seconds;
  });
  const rank_idle = busy.map((seconds) => (makespan ? 1 - seconds / makespan : 0));
  const total = rows.length * makespan;
  const idle = total ? (total - busy.reduce((sum, seconds) => sum + seconds, 0)) / total : 0;
  return { rows, makespan_s: makespan, idle, rank_idle };
}

/** The costs of each micro-batch: of the largest, and behind them of those with a row less. */
function microbatches({ state }) {
  const sizes = new Array(state.num_microbatches).fill(state);
  return sizes.fill(state.smaller, sizes.length - state.num_smaller);
}

/** By stage and micro-batch, what `value(state, start, stop)` gives. */
function byStage(costs, edges, value) {
  const sizes = microbatches(costs);
  const numStages = edges.length - 1;
  const values = new Float64Array(numStages * sizes.length);
  for (let stage = 0; stage < numStages; stage++) {
    for (const [index, size] of sizes.entries()) {
      values[stage * sizes.length + index] = value(size, edges[stage], edges[stage + 1]);
    }
  }
  return values;
}

function timedWork(costs, edges, training) {
  const { fixed_s, latency_s, link_bytes_per_s, overlap, num_slots, parallel } = costs.state;
  const seconds = (before, start, stop) => before[stop] - before[start] + fixed_s;
  const loaded = byStage(costs, edges, (size, start, stop) => seconds(size.time_before, start, stop));
  const apart = costs.state.alone_before !== null;
  const { cutIndex } = costs.model;
  const moved = (size, cut) => latency_s + size.cut_bytes[cutIndex.get(cut)] / link_bytes_per_s;
  const sizes = microbatches(costs);
  return {
    numStages: edges.length - 1,
    numMicrobatches: sizes.length,
    alone: apart ? byStage(costs, edges, (size, start, stop) => seconds(size.alone_before, start, stop)) : loaded,
    loaded,
    transfer: byStage(costs, edges.slice(1), moved),
    // Where a rank does its transfers itself, it also copies the model's outputs to where they are gathered.
    output: training || overlap ? null : sizes.map((size) => size.output_bytes / link_bytes_per_s),
    overlap,
    numSlots: num_slots,
    parallel,
  };
}

function sharesOfWork(costs, edges) {
  const whole = costs.state.flops_before.at(-1) || 1;
  const shareOf = ({ flops_before }, start, stop) => (flops_before[stop] - flops_before[start]) / whole;
  const share = byStage(costs, edges, shareOf);
  const numMicrobatches = costs.state.num_microbatches;
  return {
    numStages: edges.length - 1,
    numMicrobatches,
    alone: share,
    loaded: share,
    transfer: new Float64Array(share.length),
    output: null,
    overlap: true,
    numSlots: null,
    parallel: null,
  };
}
