// Where pieces, boxes and dividers lie, in pixels: pure geometry.

import { firstAtLeast } from "./numbers.js";

// Of a block's width this share is even between its ops: those without parameters need a place as well.
const EVEN = 0.4;

/** The share of the ribbon's width before each position: a floor for each block, the rest by `sizeOf(start, stop)`. */
export function sharesBefore(model, width, sizeOf) {
  const { blocks } = model.data;
  const sizes = blocks.map(([, start, stop]) => sizeOf(start, stop));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const floor = total ? Math.min(8 / width, 0.5 / blocks.length) : 1 / blocks.length;
  const rest = total ? (1 - floor * blocks.length) / total : 0;
  const before = new Float64Array(model.numOps + 1);
  for (const [index, [, start, stop]] of blocks.entries()) {
    const span = floor + rest * sizes[index];
    const own = new Float64Array(stop - start);
    let sum = 0;
    for (let op = start; op < stop; op++) sum += own[op - start] = sizeOf(op, op + 1);
    for (let op = start; op < stop; op++) {
      const share = sum ? EVEN / own.length + ((1 - EVEN) * own[op - start]) / sum : 1 / own.length;
      before[op + 1] = before[op] + span * share;
    }
  }
  before[model.numOps] = 1;
  return before;
}

/** The place of a share among ascending shares: a position with a fraction. */
export function placeOf(before, share) {
  const op = Math.min(Math.max(firstAtLeast(before, share) - 1, 0), before.length - 2);
  const span = before[op + 1] - before[op];
  return op + (span ? Math.min(Math.max((share - before[op]) / span, 0), 1) : 0);
}

/** Left edges of equal boxes, each as near to its wanted centre as the others and the width let it. */
export function placeBoxes(centres, box, gap, width) {
  const lefts = centres.map((centre) => centre - box / 2);
  for (let i = 0; i < lefts.length; i++) lefts[i] = Math.max(lefts[i], i ? lefts[i - 1] + box + gap : 0);
  for (let i = lefts.length - 1; i >= 0; i--) {
    lefts[i] = Math.min(lefts[i], i === lefts.length - 1 ? width - box : lefts[i + 1] - box - gap);
  }
  return lefts;
}

/** What marks the dearest stage, the first that there is room for. */
export const MARKS = { plain: ["▲ largest", "largest"], timed: ["▲ bottleneck", "▲ slowest", "slowest"] };

/** A line for each text, and the bars under two of them: of time, and of memory where its size is known. */
export function boxHeight({ timed, narrow, capacity }) {
  const lines = (narrow ? 3 : timed ? 4 : 3) + (narrow && timed ? 1 : 0);
  return 14 + 18 * lines + (timed ? 5 : 0) + (capacity === null ? 0 : 6);
}

/** How the stage boxes are laid out: in one row under the ribbon, or wrapped into equal rows. */
export function boxGrid(count, width, ruler, timed) {
  const [mark, short] = MARKS[timed ? "timed" : "plain"].slice(-2);
  const texts = [ruler.width("88.8 MB", 12), ruler.width("88", 12, 600) + ruler.width(short, 11, 600) + 6];
  if (timed) texts.push(ruler.width("888 of 888 GB", 11, 600));
  const least = Math.ceil(Math.max(...texts)) + 16;
  const wide = Math.ceil(ruler.width("88.8 M", 13) + ruler.width("88.8 MB", 12)) + 32;
  const named = Math.ceil(ruler.width("Stage 88", 12, 600) + ruler.width(mark, 11, 600)) + 30;
  const grid = (rows, columns, box) => ({ rows, columns, box, gap, narrow: box < wide, named: box >= named });
  const gap = Math.ceil(ruler.width("88.8 MB", 11)) + 12;
  const most = Math.floor((width - (count - 1) * gap) / count);
  if (most >= least) {
    return grid(1, count, Math.min(most, Math.max(named, Math.min(184, Math.floor(0.72 * most)))));
  }
  const rows = Math.ceil(count / Math.floor(width / (least + gap)));
  const columns = Math.ceil(count / rows);
  return grid(rows, columns, Math.floor(width / columns) - gap);
}
