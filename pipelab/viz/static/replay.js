// What every rank does and when, as pipelab/replay.py finds it: orders and seconds in, rows of events out.

import { Clock, SharedClock } from "./clocks.js";

// The backward of a matrix product is two of them: one for the inputs' gradient, one for the weights'.
const TIMES_FORWARD = { F: 1, B: 2, I: 1, W: 1 };

/**
 * Rows of events [kind, stage, microbatch, start, end], one per rank and by start; waits are left out. `work` has, by
 * stage and micro-batch in one array, `alone` and `loaded` seconds of a forward, by boundary `transfer`, by
 * micro-batch `output` (or null); and `overlap`, `numSlots` and `parallel` (null is no limit). Returns {rows}, or
 * {error} where ranks wait for each other.
 */
export function replay(orders, work) {
  const run = new Replay(orders, work);
  for (let rank = 0; rank < orders.length; rank++) run.goOn(rank);
  while (run.clock.step());
  const stuck = orders.flatMap((order, rank) => {
    const { stage, kind, microbatch } = order[run.at[rank]] ?? {};
    return kind ? [`rank ${rank} at ${stage}${kind}${microbatch}`] : [];
  });
  if (!stuck.length) return { rows: run.rows.map(byStart) };
  const each = stuck.join(", ");
  return { error: `The schedule cannot be finished: its ranks wait for each other, ${each}. Use another order.` };
}

/** Events by start, then end. They were noted as they ended, so that few are out of place. */
function byStart(events) {
  for (let index = 1; index < events.length; index++) {
    const event = events[index];
    let place = index;
    for (; place && isLater(events[place - 1], event); place--) events[place] = events[place - 1];
    events[place] = event;
  }
  return events;
}

const isLater = (a, b) => a[3] > b[3] || (a[3] === b[3] && a[4] > b[4]);

class Replay {
  constructor(orders, work) {
    const { numStages, numMicrobatches } = work;
    const many = (count, value) => new Array(count).fill(value);
    this.orders = orders;
    this.work = work;
    this.clock = work.parallel === null ? new Clock() : new SharedClock(work.parallel);
    this.rows = orders.map(() => []);
    // Of each rank: its place in its order, since when it is free, and what it must send before it goes on.
    this.at = many(orders.length, 0);
    this.busy = many(orders.length, false);
    this.free = many(orders.length, 0);
    this.outbox = many(orders.length, null);
    // Inputs that are there, by stage and micro-batch.
    const gradients = many(numStages * numMicrobatches, false);
    const inputs = gradients.map((_, index) => index < numMicrobatches);
    this.ready = { F: inputs, B: gradients, I: gradients, W: [...gradients] };
    // Of each boundary, forward and backward: micro-batches its link holds.
    this.held = { true: many(numStages, 0), false: many(numStages, 0) };
    this.linkFree = many(orders.length ** 2, 0);
  }

  place(stage, microbatch) {
    return stage * this.work.numMicrobatches + microbatch;
  }

  rankOf(stage) {
    return stage % this.orders.length;
  }

  /** Let a rank begin what it can begin now. */
  goOn(rank) {
    if (this.busy[rank]) return;
    const message = this.outbox[rank];
    if (message) {
      this.tryToSend(message);
      if (this.busy[rank] || this.outbox[rank]) return;
    }
    const action = this.orders[rank][this.at[rank]];
    if (!action) return;
    const place = this.place(action.stage, action.microbatch);
    if (!this.ready[action.kind][place]) return;
    this.waited(rank);
    this.busy[rank] = true;
    const times = TIMES_FORWARD[action.kind];
    this.clock.compute(times * this.work.alone[place], times * this.work.loaded[place], this.computed, rank);
  }

  waited(rank) {
    this.free[rank] = Math.max(this.free[rank], this.clock.now);
  }

  note(rank, { kind, stage, microbatch }, start, end) {
    this.rows[rank].push([kind, stage, microbatch, start, end]);
  }

  noteSend({ rank, action }, start, end) {
    this.rows[rank].push(["send", action.stage, action.microbatch, start, end]);
  }

  computed = (rank) => {
    const action = this.orders[rank][this.at[rank]];
    this.note(rank, action, this.free[rank], this.clock.now);
    this.at[rank] += 1;
    this.busy[rank] = false;
    this.free[rank] = this.clock.now;
    this.outbox[rank] = this.passOn(action, rank);
    if (!this.outbox[rank]) this.release(action);
    this.goOn(rank);
  };

  /** Note what is now there on this rank; what another rank needs, or whoever gathers the outputs, is returned. */
  passOn(action, rank) {
    const { stage, kind, microbatch } = action;
    if (kind === "W") return null;
    const last = stage === this.work.numStages - 1;
    if (kind === "F" && last) {
      this.ready.B[this.place(stage, microbatch)] = true;
      return this.work.output ? { action, rank, toStage: null, boundary: stage } : null;
    }
    if (kind !== "F") this.ready.W[this.place(stage, microbatch)] = true;
    const toStage = kind === "F" ? stage + 1 : stage - 1;
    if (toStage < 0) return null;
    if (this.rankOf(toStage) !== rank) return { action, rank, toStage, boundary: Math.min(stage, toStage) };
    this.ready[kind][this.place(toStage, microbatch)] = true;
    return null;
  }

  tryToSend(message) {
    const { action, rank, toStage, boundary } = message;
    if (toStage === null) {
      this.occupy(message, this.work.output[action.microbatch]);
      return;
    }
    const held = this.held[action.kind === "F"];
    const { numSlots, overlap } = this.work;
    if (numSlots !== null && held[boundary] >= numSlots) return;
    held[boundary] += 1;
    this.waited(rank);
    const seconds = this.work.transfer[this.place(boundary, action.microbatch)];
    if (!overlap) {
      this.occupy(message, seconds);
      return;
    }
    this.outbox[rank] = null;
    const link = rank * this.orders.length + this.rankOf(toStage);
    const start = Math.max(this.clock.now, this.linkFree[link]);
    this.linkFree[link] = start + seconds;
    this.noteSend(message, start, start + seconds);
    this.clock.at(start + seconds, this.sent, message);
  }

  /** The rank moves the bytes itself, and can compute nothing meanwhile. */
  occupy(message, seconds) {
    this.outbox[message.rank] = null;
    this.busy[message.rank] = true;
    this.clock.compute(seconds, seconds, this.sentByRank, message);
  }

  sentByRank = (message) => {
    const { rank } = message;
    this.noteSend(message, this.free[rank], this.clock.now);
    this.busy[rank] = false;
    this.free[rank] = this.clock.now;
    this.sent(message);
    this.goOn(rank);
  };

  sent = ({ action, toStage }) => {
    this.release(action);
    if (toStage === null) return;
    this.ready[action.kind][this.place(toStage, action.microbatch)] = true;
    this.goOn(this.rankOf(toStage));
  };

  /** Free the place in the link by which the action's input came. */
  release({ stage, kind }) {
    if (this.work.numSlots === null || kind === "W") return;
    const from = kind === "F" ? stage - 1 : stage + 1;
    if (from < 0 || from === this.work.numStages || this.rankOf(from) === this.rankOf(stage)) return;
    this.held[kind === "F"][Math.min(stage, from)] -= 1;
    this.goOn(this.rankOf(from));
  }
}
