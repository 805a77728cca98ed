// In which order each rank works off its stages and micro-batches, as pipelab/schedules.py orders them. No times.

import { plural } from "./numbers.js";

/** How sentences call each schedule, and `alone` a list of them where that is longer. */
export const SCHEDULE_NAMES = {
  gpipe: { text: "GPipe", alone: "GPipe (fill-drain)" },
  "1f1b": { text: "1F1B" },
  interleaved_1f1b: { text: "interleaved 1F1B", alone: "Interleaved 1F1B" },
  zb_h1: { text: "ZB-H1", alone: "ZB-H1 (zero bubble)" },
};

const MOST_KEPT = 64;
const kept = new Map();

/**
 * Ranks of a schedule: one per stage, or for the interleaved one as many as were asked for. Where nobody asked it is
 * the largest number below the stages that divides them; a prime number of stages has as many ranks.
 */
export function ranksOf(schedule, numStages, asked) {
  if (schedule !== "interleaved_1f1b") return numStages;
  if (asked) return asked;
  for (let count = Math.floor(numStages / 2); count > 1; count -= 1) if (numStages % count === 0) return count;
  return numStages;
}

/**
 * The ordered actions of every rank, each {stage, kind, microbatch, last: whether no other needs the same activations};
 * stage s is on rank s mod `numRanks`. Without training forwards only. Returns {orders}, or {error} where the schedule
 * does not fit the stages and ranks.
 */
export function scheduleActions(name, numRanks, numStages, numMicrobatches, train) {
  const error = misfit(name, numRanks, numStages, numMicrobatches);
  if (error) return { error };
  const key = [name, numRanks, numStages, numMicrobatches, train].join();
  if (!kept.has(key)) {
    if (kept.size === MOST_KEPT) kept.clear();
    const generate = train ? GENERATORS[name] : forwardsOnly;
    const ranks = Array.from({ length: numRanks }, (_, rank) => rank);
    const orders = ranks.map((rank) => generate(rank, numRanks, numStages / numRanks, numMicrobatches));
    kept.set(key, orders.map(withLast));
  }
  return { orders: kept.get(key) };
}

function withLast(order) {
  const ended = new Set();
  const backwards = [...order].reverse().map((action) => {
    const key = `${action.stage} ${action.microbatch}`;
    const last = !ended.has(key);
    ended.add(key);
    return { ...action, last };
  });
  return backwards.reverse();
}

/** The most a rank holds at once of `bytesOf(stage)` per micro-batch, each from its forward to the last to need it. */
export function mostHeld(order, bytesOf) {
  let held = 0;
  let most = 0;
  for (const { stage, kind, last } of order) {
    if (kind === "F") held += bytesOf(stage);
    most = Math.max(most, held);
    if (last) held -= bytesOf(stage);
  }
  return most;
}

/** Why a schedule cannot be, or null. */
function misfit(name, numRanks, numStages, numMicrobatches) {
  const names = Object.keys(GENERATORS);
  if (!names.includes(name)) {
    return `There is no schedule '${name}'; there are ${names.map((known) => `'${known}'`).join(", ")}.`;
  }
  if (Math.min(numRanks, numStages, numMicrobatches) < 1) {
    return (
      `A schedule needs at least one rank, one stage and one micro-batch; asked for ${numRanks}, ${numStages} ` +
      `and ${numMicrobatches}.`
    );
  }
  const stages = plural(numStages, "stage");
  const ranks = plural(numRanks, "rank");
  if (numStages % numRanks) {
    return `${stages} cannot be dealt evenly to ${ranks}: choose a number of ranks that divides ${numStages}.`;
  }
  if (numStages > numRanks && name !== "interleaved_1f1b") {
    return (
      `'${name}' has one stage per rank, and there are ${stages} for ${ranks}: use 'interleaved_1f1b', or as many ` +
      "ranks as stages."
    );
  }
  return null;
}

const act = (stage, kind, microbatch) => ({ stage, kind, microbatch });

const range = (start, stop) => Array.from({ length: Math.max(0, stop - start) }, (_, index) => start + index);

/** Forwards and backwards of a rank with several stages, in rounds of as many micro-batches as there are ranks. */
function chunked(rank, numRanks, perRank, numMicrobatches) {
  const [forwards, backwards] = [[], []];
  for (let first = 0; first < numMicrobatches; first += numRanks) {
    const round = range(first, first + numRanks); // the last one may be longer than what is left of the batch
    for (const chunk of range(0, perRank)) {
      const stage = chunk * numRanks + rank;
      forwards.push(...round.map((microbatch) => act(stage, "F", microbatch)));
    }
    for (const chunk of range(0, perRank).reverse()) {
      const stage = chunk * numRanks + rank;
      backwards.push(...round.map((microbatch) => act(stage, "B", microbatch)));
    }
  }
  return [forwards, backwards];
}

function forwardsOnly(rank, numRanks, perRank, numMicrobatches) {
  const [forwards] = chunked(rank, numRanks, perRank, numMicrobatches);
  return forwards.filter(({ microbatch }) => microbatch < numMicrobatches);
}

function gpipe(rank, _numRanks, _perRank, numMicrobatches) {
  return ["F", "B"].flatMap((kind) => range(0, numMicrobatches).map((microbatch) => act(rank, kind, microbatch)));
}

function oneFOneB(rank, numRanks, _perRank, numMicrobatches) {
  const [forwards, backwards] = ["F", "B"].map((kind) => range(0, numMicrobatches).map((i) => act(rank, kind, i)));
  return alternate(forwards, backwards, numRanks - 1 - rank);
}

/** Narayanan et al. 2021, section 2.2 (arXiv 2104.04473); with one stage per rank it is 1F1B. */
function interleaved(rank, numRanks, perRank, numMicrobatches) {
  if (perRank === 1) return oneFOneB(rank, numRanks, perRank, numMicrobatches);
  const [forwards, backwards] = chunked(rank, numRanks, perRank, numMicrobatches);
  const order = alternate(forwards, backwards, (perRank - 1) * numRanks + 2 * (numRanks - 1 - rank));
  return order.filter(({ microbatch }) => microbatch < numMicrobatches);
}

/** Some forwards, then one forward and one backward in turn, then what backwards remain. */
function alternate(forwards, backwards, numWarmup) {
  const warmup = Math.min(numWarmup, forwards.length);
  const order = forwards.slice(0, warmup);
  for (const [index, forward] of forwards.slice(warmup).entries()) order.push(forward, backwards[index]);
  return [...order, ...backwards.slice(forwards.length - warmup)];
}

/** ZB-H1 of Qi et al. 2023 (arXiv 2401.10241): 1F1B whose rank r does the weight parts r micro-batches late. */
function zeroBubble(rank, numRanks, perRank, numMicrobatches) {
  const order = [];
  for (const action of oneFOneB(rank, numRanks, perRank, numMicrobatches)) {
    if (action.kind === "F") {
      order.push(action);
      continue;
    }
    order.push(act(rank, "I", action.microbatch));
    if (action.microbatch >= rank) order.push(act(rank, "W", action.microbatch - rank));
  }
  const late = range(Math.max(numMicrobatches - rank, 0), numMicrobatches);
  return [...order, ...late.map((microbatch) => act(rank, "W", microbatch))];
}

const GENERATORS = { gpipe, "1f1b": oneFOneB, interleaved_1f1b: interleaved, zb_h1: zeroBubble };
