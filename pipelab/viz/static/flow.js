// Who makes which value, and which ops read it: the model as a graph. Value -1 is the first model input.

import { firstAtLeast } from "./numbers.js";

export class Flow {
  /** From what pipelab/viz/explorer_flow.py tells. */
  constructor(state) {
    this.state = state;
    this.numOps = state.kind.length;
    this.numInputs = state.inputs.length;
    this.outputs = new Set(state.outputs);
    const apart = new Set(state.apart);
    const chain = state.kind.map((_, op) => [op - 1, op]).filter(([, op]) => op && !apart.has(op));
    const reads = [...chain, ...state.sources.map((source, i) => [source, state.targets[i]])];
    const { numInputs, numOps } = this;
    this.readersBy = grouped(numOps + numInputs, reads.map(([source, op]) => [source + numInputs, op]));
    this.sourcesBy = grouped(numOps, reads.map(([source, op]) => [op, source]));
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

  /** Whether an op from `start` to `stop` reads a value. */
  reads(start, stop, value) {
    const readers = this.readers(value);
    return readers[firstAtLeast(readers, start)] < stop;
  }
}

/** The values of each key, ascending: where those of a key begin in one long list, and that list. */
function grouped(count, pairs) {
  const starts = new Int32Array(count + 1);
  pairs.sort(([a, x], [b, y]) => a - b || x - y);
  for (const [key] of pairs) starts[key + 1] += 1;
  for (let key = 0; key < count; key++) starts[key + 1] += starts[key];
  return { starts, list: Int32Array.from(pairs, ([, value]) => value) };
}
