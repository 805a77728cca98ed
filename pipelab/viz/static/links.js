// What joins stages that are not neighbours: tied weights, skip connections, and values that many stages read.

import { firstAtLeast, formatBytes } from "./numbers.js";
import { briefName, tensorOf, tensorWords } from "./values.js";

/**
 * Weights and values that join stages which are not neighbours: tied weights and values relayed by a stage as `arcs`,
 * the largest first; as `broadcasts` the values that several later stages read, told on their boxes instead.
 */
export function links(model, cuts, stages, rows) {
  const found = new Map();
  const broadcasts = [];
  const add = (kind, ends, name, bytes) => {
    const key = `${kind} ${ends}`;
    const link = found.get(key) ?? { kind, ends, names: [], bytes: 0 };
    link.names.push(name);
    link.bytes += bytes;
    found.set(key, link);
  };
  for (const { uses, bytes, label } of model.shared) {
    const ends = stagesOf(stages, uses);
    if (ends.length > 1) add("tied", ends, label, bytes);
  }
  for (const [value, { first, last }] of crossings(model, cuts)) {
    if (last === first) continue;
    const tensor = tensorOf(model, value, rows);
    const from = stagesOf(stages, [Math.max(value, 0)])[0];
    const readers = stagesOf(stages, model.flow.readers(value)).filter((stage) => stage > from);
    // Read by the next stage and a distant one it is a skip all the same.
    const relayed = last + 1 - from > readers.length;
    if (readers.length > (relayed ? 2 : 1)) broadcasts.push({ ...tensor, brief: briefName(model, tensor), from, readers });
    else add("skip", [first, last + 1], tensorWords(tensor), tensor.bytes);
  }
  return { arcs: [...found.values()].sort((a, b) => b.bytes - a.bytes), broadcasts };
}

/** Of each value that crosses a cut, the first and the last one. */
function crossings(model, cuts) {
  const found = new Map();
  for (const [index, cut] of cuts.entries()) {
    for (const value of model.cut(cut).alive) {
      const crossing = found.get(value);
      if (crossing) crossing.last = index;
      else found.set(value, { first: index, last: index });
    }
  }
  return found;
}

/** The stages that hold these ops, ascending. */
function stagesOf(stages, ops) {
  const found = [];
  for (const { index, start, stop } of stages) {
    if (ops[firstAtLeast(ops, start)] < stop) found.push(index);
  }
  return found;
}

export function linkText({ kind, ends, names, bytes }) {
  const shown = names.length > 1 ? `${names[0]} and ${names.length - 1} more` : names[0];
  if (kind === "skip") return `skip${shown.includes(": ") ? " from" : ":"} ${shown}, ${formatBytes(bytes)} across ${ends[1] - ends[0]} boundaries`;
  const where = ends.length === 2 ? "in both" : `in ${ends.length} stages`;
  return `${shown.includes(" = ") ? "tied" : "shared"}: ${shown}, ${formatBytes(bytes)} ${where}`;
}

/** What a stage reads of what many read, in many words and in few: "mask, rotary_emb", "mask, 1 more". */
export function badgeTexts(broadcasts, stage) {
  const names = [...new Set(broadcasts.filter(({ readers }) => readers.includes(stage)).map(({ brief }) => brief))];
  if (names.length < 2) return names;
  return [names.join(", "), `${names[0]}, ${names.length - 1} more`, `${names.length} inputs`];
}
