// Where pieces, boxes and dividers lie, in pixels: pure geometry.

import { firstAtLeast } from "./numbers.js";

/** Left edges of the ribbon's pieces: a floor for each, the rest by parameters. */
export function pieceEdges(model, width) {
  const { blocks } = model.data;
  const sizes = blocks.map(([, start, stop]) => model.size(start, stop).params);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const floor = total ? Math.min(8, width / blocks.length / 2) : width / blocks.length;
  const rest = width - floor * blocks.length;
  const edges = [0];
  for (const size of sizes) edges.push(edges.at(-1) + floor + (total ? (rest * size) / total : 0));
  return edges;
}

/** Where a cut lies on the ribbon: evenly between the ops of its block. */
export function cutX(model, edges, position) {
  const { blocks } = model.data;
  const index = Math.max(0, firstAtLeast(blocks.map(([, , stop]) => stop), position + 1));
  if (index >= blocks.length) return edges.at(-1);
  const [, start, stop] = blocks[index];
  return edges[index] + ((edges[index + 1] - edges[index]) * (position - start)) / (stop - start);
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
