// A traced model as Python sent it: sizes of any range of ops, legal cuts, names.

import { firstAtLeast } from "./numbers.js";
import { Program } from "./program.js";

export const LEVELS = ["block", "module", "op"];

/** Sizes of what ops use, summed over any range of ops: what several of them use counts once. */
export class Sizes {
  constructor(numOps, used) {
    this.before = new Float64Array(numOps + 1);
    this.shared = [];
    for (const [uses, size] of used) {
      if (uses.length > 1) this.shared.push([uses, size]);
      else this.before[uses[0] + 1] += size;
    }
    for (let op = 0; op < numOps; op++) this.before[op + 1] += this.before[op];
  }

  between(start, stop) {
    let sum = this.before[stop] - this.before[start];
    for (const [uses, size] of this.shared) {
      if (uses[firstAtLeast(uses, start)] < stop) sum += size;
    }
    return sum;
  }
}

/** A traced model: sizes of any range of ops, and what is alive at each legal cut. */
export class Model {
  constructor(data) {
    this.data = data;
    this.numOps = data.num_ops;
    this.params = new Sizes(data.num_ops, data.weights.map(([uses, elements]) => [uses, elements]));
    this.bytes = new Sizes(data.num_ops, data.weights.map(([uses, , bytes]) => [uses, bytes]));
    this.shared = data.weights
      .filter(([uses]) => uses.length > 1)
      .map(([uses, , bytes, label]) => ({ uses, bytes, label }));
    this.program = new Program(data);
    this.positions = data.cuts.positions;
    this.cutIndex = new Map(this.positions.map((position, index) => [position, index]));
    const ranks = this.positions.map((position) => LEVELS.indexOf(this.program.levelAt(position)));
    this.byLevel = {};
    for (const [rank, level] of LEVELS.entries()) {
      this.byLevel[level] = this.positions.filter((_, index) => ranks[index] <= rank);
    }
  }

  /** Who makes and who reads which value. */
  get flow() {
    return this.program.flow;
  }

  /** Elements and bytes of the parameters that ops `start` to `stop` read, each counted once. */
  size(start, stop) {
    return { params: this.params.between(start, stop), bytes: this.bytes.between(start, stop) };
  }

  /** The stages between these cuts: start, stop, params, bytes, and the labels of the blocks they hold. */
  stages(cuts) {
    const edges = [0, ...cuts, this.numOps];
    return edges.slice(1).map((stop, index) => {
      const start = edges[index];
      return { index, start, stop, ...this.size(start, stop) };
    });
  }

  labels(stage, write = (label) => label) {
    const inside = this.data.blocks.filter(([, start, stop]) => start < stage.stop && stop > stage.start);
    return shorten(inside.map(([label]) => write(label)));
  }

  /** A cut: where it is in words, the values alive there, and their bytes for the traced batch. */
  cut(position) {
    const { program } = this;
    return { position, label: program.labelAt(position), bytes: program.bytesAt[position], alive: program.alive(position) };
  }

  /** A value that is alive at a cut, for so many rows: {name, shape, dtype, bytes, batched}. */
  tensor(value, rows) {
    return this.program.tensor(value, rows);
  }

  /** The block that holds an op. */
  blockAt(position) {
    const index = this.program.blockOf[position];
    const [label, start, stop] = this.data.blocks[index];
    return { level: "block", index, label, path: label, start, stop };
  }

  /** The pieces between two positions, those partly inside included: blocks, runs of ops of one module, or ops. */
  pieces(level, from = 0, to = this.numOps) {
    const { program } = this;
    const last = Math.max(from, to - 1);
    if (level === "op") return Array.from({ length: to - from }, (_, at) => program.opPiece(from + at));
    const of = level === "block" ? program.blockOf : program.runOf;
    const piece = level === "block" ? (index) => this.blockAt(this.data.blocks[index][1]) : (run) => program.runPiece(run);
    return Array.from({ length: of[last] - of[from] + 1 }, (_, at) => piece(of[from] + at));
  }

  /** The legal cut nearest to where `wanted` is, strictly between two positions; undefined if there is none. */
  nearest(level, wanted, above, below) {
    const positions = this.byLevel[level];
    const first = firstAtLeast(positions, above + 1);
    const stop = firstAtLeast(positions, below);
    if (first >= stop) return undefined;
    const right = Math.min(Math.max(firstAtLeast(positions, wanted), first), stop - 1);
    const left = Math.max(right - 1, first);
    return wanted - positions[left] <= positions[right] - wanted ? positions[left] : positions[right];
  }

  /** The cut `steps` legal cuts away, as far as it goes between two positions. */
  step(level, from, steps, above, below) {
    const positions = this.byLevel[level];
    const at = firstAtLeast(positions, from);
    const past = steps > 0 && positions[at] !== from ? steps - 1 : steps;
    const lowest = firstAtLeast(positions, above + 1);
    const highest = firstAtLeast(positions, below) - 1;
    const found = Math.min(Math.max(at + past, lowest), highest);
    return lowest > highest || Math.sign(positions[found] - from) === -Math.sign(steps) ? from : positions[found];
  }
}

/** "add_7 (8×128×768 float32)". */
export const tensorText = ({ name, shape, dtype }) => `${name} (${shape.join("×") || "scalar"} ${dtype})`;

/** "decoder.block.3" as "decoder.3". */
export const endParts = (label) => label.replace(/\..*\./, ".");

export const lastPart = (label) => label.slice(label.lastIndexOf(".") + 1);

/** Labels in a few words; runs of numbered blocks are joined: "embed, h.0–2". */
export function shorten(labels) {
  const parts = [];
  for (const label of labels) {
    const dot = label.lastIndexOf(".");
    const stem = label.slice(0, Math.max(dot, 0));
    const number = /^\d+$/.test(label.slice(dot + 1)) ? Number(label.slice(dot + 1)) : null;
    const before = parts.at(-1);
    if (number === null) parts.push({ stem: label, first: null, last: null });
    else if (before && before.stem === stem && before.last === number - 1) before.last = number;
    else parts.push({ stem, first: number, last: number });
  }
  return parts
    .map(({ stem, first, last }) => {
      if (first === null) return stem;
      const dotted = stem ? `${stem}.` : "";
      return first === last ? `${dotted}${first}` : `${dotted}${first}–${last}`;
    })
    .join(", ");
}
