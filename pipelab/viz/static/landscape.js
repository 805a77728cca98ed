// How good every place of one divider is, the others staying where they are: pure arithmetic.

import { firstAtLeast } from "./numbers.js";

/** The legal places of a divider between its neighbours, at this level. */
export function placesOf(model, level, cuts, index) {
  const positions = model.byLevel[level];
  const above = index ? cuts[index - 1] : 0;
  const below = index < cuts.length - 1 ? cuts[index + 1] : model.numOps;
  return positions.slice(firstAtLeast(positions, above + 1), firstAtLeast(positions, below));
}

/** For each place of a divider the cost of the split's dearest stage with it there, and the bytes that would cross. */
export function landscape(costs, cuts, index, places) {
  const edges = [0, ...cuts, costs.model.numOps];
  const count = edges.length - 1;
  const [above, below] = [edges[index], edges[index + 2]];
  const others = costs.dearestCost(cuts, (stage) => stage !== index && stage !== index + 1);
  const worst = (place) => Math.max(others, costs.stageCost(above, place, count), costs.stageCost(place, below, count));
  return { values: Float64Array.from(places, worst), bytes: Float64Array.from(places, (place) => costs.cutBytes(place)) };
}

/** The best place, by index: the least value, among equals the fewest bytes. */
export function bestOf(values, bytes) {
  let best = 0;
  for (let index = 1; index < values.length; index++) {
    const isLess = values[index] < values[best] || (values[index] === values[best] && bytes[index] < bytes[best]);
    if (isLess) best = index;
  }
  return best;
}

/** The least value in each pixel column: [x, value], from left to right; what lies outside the width is left out. */
export function binned(xs, values, width) {
  const columns = [];
  for (const [index, x] of xs.entries()) {
    if (x < 0 || x > width) continue;
    const last = columns.at(-1);
    if (last && Math.floor(x) === Math.floor(last[0])) last[1] = Math.min(last[1], values[index]);
    else columns.push([x, values[index]]);
  }
  return columns;
}

/** Values as shares of the span between the least and the greatest; in the middle where all are equal. */
export function leveled(values) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return Float64Array.from(values, (value) => (most > least ? (value - least) / (most - least) : 0));
}
