// What joins stages that are not neighbours: tied weights and skip connections.

import { formatBytes } from "./numbers.js";
import { tensorText } from "./model.js";

/** Weights and values that join stages which are not neighbours: tied weights, and values relayed by a stage. */
export function links(model, cuts, stages) {
  const found = new Map();
  const add = (kind, ends, name, bytes) => {
    const key = `${kind} ${ends}`;
    const link = found.get(key) ?? { kind, ends, names: [], bytes: 0 };
    link.names.push(name);
    link.bytes += bytes;
    found.set(key, link);
  };
  for (const { uses, bytes, label } of model.shared) {
    const ends = [...new Set(uses.map((op) => stages.findIndex((stage) => op < stage.stop)))];
    if (ends.length > 1) add("tied", ends, label, bytes);
  }
  const crossings = new Map();
  for (const [index, cut] of cuts.entries()) {
    for (const tensor of model.cut(cut).alive) {
      const crossing = crossings.get(tensor);
      if (crossing) crossing.last = index;
      else crossings.set(tensor, { first: index, last: index });
    }
  }
  for (const [tensor, { first, last }] of crossings) {
    const value = model.tensor(tensor);
    if (last > first) add("skip", [first, last + 1], tensorText(value), value.bytes);
  }
  return [...found.values()].sort((a, b) => b.bytes - a.bytes);
}

export function linkText({ kind, ends, names, bytes }) {
  const shown = names.length > 1 ? `${names[0]} and ${names.length - 1} more` : names[0];
  if (kind === "skip") return `skip${shown.includes(": ") ? " from" : ":"} ${shown}, ${formatBytes(bytes)} across ${ends[1] - ends[0]} boundaries`;
  const where = ends.length === 2 ? "in both" : `in ${ends.length} stages`;
  return `${shown.includes(" = ") ? "tied" : "shared"}: ${shown}, ${formatBytes(bytes)} ${where}`;
}
