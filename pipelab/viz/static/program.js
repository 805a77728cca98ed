// Ops, modules and values of a traced model, from the columns of numbers that Python sent: what it did not send because
// it follows from them is here. Labels and names are pipelab's own (Graph.label_at, value_names).

import { Flow } from "./flow.js";

const LONGEST = 28;

export class Program {
  constructor(data) {
    const { names, tree, prefix, runs, calls } = data;
    this.data = data;
    this.numOps = data.num_ops;
    this.paths = [];
    for (const [parent, name] of tree) this.paths.push(parent < 0 ? names[name] : `${this.paths[parent]}.${names[name]}`);
    this.path = (index) => (index < 0 ? "" : this.paths[index]);
    this.short = (path) => (path.startsWith(prefix) ? path.slice(prefix.length) : path) || data.model;
    this.kind = (op) => names[data.op_kinds[op]];
    this.blockStarts = new Map(data.blocks.map(([, start], index) => [start, index]));
    this.blockOf = filled(this.numOps, data.blocks.map(([, start, stop]) => stop - start));
    this.runOf = filled(this.numOps, runs.length);
    this.runStarts = starts(runs.length);
    this.callsByStart = firstOf(calls.start);
    this.callsByStop = firstOf(calls.stop);
    this.opNames = opNames(data, this.kind);
    this.flow = new Flow(data.flow);
    this.readValues();
    this.aliveAt = new Map();
  }

  // --- values: `v >= 0` is made by op `v`, `-1 - k` is input `k`

  /** The values that can cross a cut with the last op that reads each; and what is alive at each position, in bytes. */
  readValues() {
    const { caches, flow } = this.data;
    const crosses = (value) => this.kindOf(value) !== null && this.flow.lastReader(value) >= 0 && !caches.includes(value);
    this.made = [];
    for (let k = 0; k < flow.inputs.length; k++) if (crosses(-1 - k)) this.made.push(-1 - k);
    for (let op = 0; op < this.numOps; op++) if (crosses(op)) this.made.push(op);
    this.last = Int32Array.from(this.made, (value) => this.flow.lastReader(value));
    this.bytesAt = new Float64Array(this.numOps + 2);
    for (const [index, value] of this.made.entries()) {
      const [, , bytes] = flow.kinds[this.kindOf(value)];
      this.bytesAt[Math.max(value + 1, 0)] += bytes;
      this.bytesAt[this.last[index] + 1] -= bytes;
    }
    for (let at = 1; at < this.bytesAt.length; at++) this.bytesAt[at] += this.bytesAt[at - 1];
  }

  kindOf(value) {
    const { flow } = this.data;
    return value < 0 ? flow.inputs[-1 - value][1] : flow.kind[value];
  }

  /** The values made before a position and read at or after it, inputs first. */
  alive(position) {
    if (!this.aliveAt.has(position)) {
      const found = [];
      for (let index = 0; index < this.made.length && this.made[index] < position; index++) {
        if (this.last[index] >= position) found.push(this.made[index]);
      }
      this.aliveAt.set(position, found);
    }
    return this.aliveAt.get(position);
  }

  /** A value as it is for so many rows: name, shape, dtype, bytes, and whether rows matter. */
  tensor(value, rows = this.data.batch_size) {
    const { flow, batch_size: batch } = this.data;
    const [shape, dtype, bytes, batched] = flow.kinds[this.kindOf(value)];
    const name = this.valueName(value);
    if (!batched || rows === batch) return { name, shape, dtype, bytes, batched };
    const scaled = Math.max(shape.indexOf(batch), 0); // else the batch is in the first, times something
    const resized = shape.map((size, at) => (at === scaled && size % batch === 0 ? (size * rows) / batch : size));
    return { name, shape: resized, dtype, bytes: Math.floor((bytes * rows) / batch), batched };
  }

  /** "h.2.mlp: gelu_1": where a value comes from, and its name there. */
  valueName(value) {
    if (value < 0) return cutOff(this.data.flow.inputs[-1 - value][0]);
    const [label, , , index] = this.data.blocks[this.blockOf[value]];
    const path = this.path(index);
    const module = this.path(this.data.runs.path[this.runOf[value]]);
    const isInside = path && (module === path || module.startsWith(`${path}.`));
    return `${tailOf(isInside ? this.short(module) : label)}: ${cutOff(this.opNames[value])}`;
  }

  // --- places

  levelAt(position) {
    if (this.blockStarts.has(position)) return "block";
    return this.callsByStart.has(position) || this.callsByStop.has(position) ? "module" : "op";
  }

  /** Where a position is, in words. */
  labelAt(position) {
    const { blocks, calls, runs } = this.data;
    const block = this.blockStarts.get(position);
    if (block !== undefined) return `before ${blocks[block][0]}`;
    const name = ({ path, call }, index) =>
      `${this.short(this.path(path[index]))}${call[index] ? ` (call ${call[index] + 1})` : ""}`;
    for (const [word, found] of [["before", this.callsByStart], ["after", this.callsByStop]]) {
      if (found.has(position)) return `${word} ${name(calls, found.get(position))}`;
    }
    const count = this.counts[position];
    return `inside ${name(runs, this.runOf[position])}, before ${this.kind(position)}${count ? ` #${count}` : ""}`;
  }

  /** Per op, how many of its kind its module's call ran before. */
  get counts() {
    if (!this.counted) {
      const { path, call } = this.data.runs;
      const seen = new Map();
      this.counted = Int32Array.from(this.runOf, (run, op) => {
        const key = `${path[run]} ${call[run]} ${this.data.op_kinds[op]}`;
        seen.set(key, (seen.get(key) ?? -1) + 1);
        return seen.get(key);
      });
    }
    return this.counted;
  }

  // --- pieces

  /** A run of ops of one module as a piece: named by its path inside the block, by its ops where it is the block itself. */
  runPiece(run) {
    const [start, stop] = [this.runStarts[run], this.runStarts[run + 1]];
    const module = this.path(this.data.runs.path[run]);
    const block = this.path(this.data.blocks[this.blockOf[start]][3]);
    const isOwn = module === block || !module;
    const inside = block && module.startsWith(`${block}.`) ? module.slice(block.length + 1) : this.short(module);
    const kinds = [...new Set(Array.from({ length: Math.min(stop - start, 3) }, (_, at) => this.kind(start + at)))];
    return { level: "module", label: isOwn ? kinds.join(", ") : inside, path: this.short(module), start, stop };
  }

  opPiece(op) {
    const path = this.short(this.path(this.data.runs.path[this.runOf[op]]));
    return { level: "op", label: this.kind(op), path, start: op, stop: op + 1 };
  }
}

/** For each of so many ops the index of its range, ranges given by their lengths. */
function filled(count, lengths) {
  const found = new Int32Array(count);
  let at = 0;
  for (const [index, length] of lengths.entries()) found.fill(index, at, (at += length));
  return found;
}

const starts = (lengths) => {
  const found = [0];
  for (const length of lengths) found.push(found.at(-1) + length);
  return found;
};

/** Where each value of a list stands first. */
function firstOf(list) {
  const found = new Map();
  for (const [index, value] of list.entries()) if (!found.has(value)) found.set(value, index);
  return found;
}

/** Names of the ops: "add", "add_1", "add_2", where Python did not say otherwise. */
function opNames({ num_ops: count, renamed }, kind) {
  const given = new Map(renamed);
  const counts = new Map();
  return Array.from({ length: count }, (_, op) => {
    let number = (counts.get(kind(op)) ?? -1) + 1;
    const name = given.get(op) ?? (number ? `${kind(op)}_${number}` : kind(op));
    const parts = given.has(op) && /^(.*)_([0-9]+)$/s.exec(name);
    if (parts && parts[1] === kind(op)) number = Number(parts[2]);
    counts.set(kind(op), number);
    return name;
  });
}

/** The beginning of a text that is too long for a label. */
function cutOff(text) {
  const letters = [...text];
  return letters.length <= LONGEST ? text : `${letters.slice(0, LONGEST - 1).join("")}…`;
}

/** The end of a path that is too long for a label: there the block and the module stand. */
function tailOf(text) {
  const letters = [...text];
  return letters.length <= LONGEST ? text : `…${letters.slice(1 - LONGEST).join("")}`;
}
