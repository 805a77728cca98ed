// What to move where a stage does not fit its device's memory.

import { firstAtLeast } from "./numbers.js";

/** The fewest blocks to move over a divider that may move so that both stages fit, of as many the lightest; null if none. */
export function moveThatFits(costs, stages, index) {
  if (stages.some((stage) => stage.rank !== stage.index)) return null; // its device holds other stages too
  const reachable = [index - 1, index + 1].filter((to) => stages[to] && !stages[Math.max(index, to)].pinned);
  const moves = reachable.map((to) => moveToStage(costs, stages, index, to));
  const [best] = moves.filter(Boolean).sort((a, b) => a.blocks - b.blocks || a.bytes - b.bytes);
  return best ?? null;
}

/** The same to one of them. What moves is between the cut there is and one further inside the stage. */
function moveToStage(costs, stages, index, to) {
  const { model } = costs;
  const { start, stop } = stages[index];
  const back = to < index;
  for (const [count, position] of cutsInside(model.byLevel.block, start, stop, back).entries()) {
    const rest = back ? [position, stop] : [start, position];
    const other = back ? [stages[to].start, position] : [position, stages[to].stop];
    if (!costs.fits(...other, stages[to].inFlight)) return null; // and with more it fits even less
    if (!costs.fits(...rest, stages[index].inFlight)) continue;
    const moved = back ? { start, stop: position } : { start: position, stop };
    const bytes = model.bytes.between(moved.start, moved.stop);
    const cut = Math.min(index, to);
    return { stage: index, from: index, to, cut, position, label: model.labels(moved), blocks: count + 1, bytes };
  }
  return null;
}

/** Positions strictly between two others, nearest to the end that is left first. */
function cutsInside(positions, start, stop, fromStart) {
  const between = positions.slice(firstAtLeast(positions, start + 1), firstAtLeast(positions, stop));
  return fromStart ? between : between.reverse();
}
