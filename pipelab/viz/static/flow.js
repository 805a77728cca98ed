// Who makes which value, and which ops read it: the model as a graph. Value -1 is the first model input.

import { firstAtLeast } from "./numbers.js";

export class Flow {
  /** From what pipelab/viz/explorer_flow.py tells. */
  constructor(state) {
    this.state = state;
    this.numOps = state.kind.length;
    this.numInputs = state.inputs.length;
    this.outputs = new Set(state.outputs);
    const { numInputs, numOps } = this;
    const apart = new Set(state.apart);
    const pairs = { ops: [...state.targets], values: state.sources.map((value) => value + numInputs) };
    for (let op = 1; op < numOps; op++) {
      if (apart.has(op)) continue;
      pairs.ops.push(op);
      pairs.values.push(op - 1 + numInputs);
    }
    // Turned around twice, each list is in order.
    this.readersBy = turned(grouped(numOps, pairs.ops, pairs.values), numInputs + numOps);
    const { starts, list } = turned(this.readersBy, numOps);
    this.sourcesBy = { starts, list: list.map((value) => value - numInputs) };
  }

  /** The ops that read a value, ascending. */
  readers(value) {
    const { starts, list } = this.readersBy;
    return list.subarray(starts[value + this.numInputs], starts[value + this.numInputs + 1]);
  }

  /** The values that an op reads, ascending. */
  sources(op) {
    const { starts, list } = this.sourcesBy;
    return list.subarray(starts[op], starts[op + 1]);
  }

  /** The last op that reads a value; the number of ops where the model returns it, -1 where nobody reads it. */
  lastReader(value) {
    if (this.outputs.has(value)) return this.numOps;
    const { starts, list } = this.readersBy;
    const [start, stop] = [starts[value + this.numInputs], starts[value + this.numInputs + 1]];
    return stop > start ? list[stop - 1] : -1;
  }

  /** Whether an op from `start` to `stop` reads a value. */
  reads(start, stop, value) {
    const readers = this.readers(value);
    return readers[firstAtLeast(readers, start)] < stop;
  }
}

/** The values of each key: where those of a key begin in one long list, and that list. */
function grouped(count, keys, values) {
  const starts = new Int32Array(count + 1);
  for (const key of keys) starts[key + 1] += 1;
  for (let key = 0; key < count; key++) starts[key + 1] += starts[key];
  const next = starts.slice();
  const list = new Int32Array(values.length);
  for (let index = 0; index < values.length; index++) list[next[keys[index]]++] = values[index];
  return { starts, list };
}

/** The keys of each value instead, ascending. */
function turned({ starts, list }, count) {
  const keys = new Int32Array(list.length);
  for (let key = 0; key < starts.length - 1; key++) keys.fill(key, starts[key], starts[key + 1]);
  return grouped(count, list, keys);
}
