// A model as a strip of pieces in the colours of its stages: what explorer and comparison have in common.

import { keep, set, svg } from "./dom.js";
import { placeOf, sharesBefore } from "./layout.js";

const ARROW = 12;
const FONT = { size: 11, weight: 500 };

export class Strip {
  constructor({ model, colours, ruler, height = 40 }) {
    Object.assign(this, { model, colours, ruler, height });
    this.fills = svg("g");
    this.pieces = svg("g");
    this.node = svg("svg", { class: "pl-strip", "aria-hidden": "true" });
    this.node.append(this.fills, this.pieces);
    this.names = [];
  }

  /** Draw what a drag does not change. `sizeOf(start, stop)` gives widths, `describe(piece)` tooltips. */
  layout(width, { zoom = [0, 1], sizeOf, describe }) {
    if (this.width !== width || this.sizeOf !== sizeOf) this.before = sharesBefore(this.model, width, sizeOf);
    Object.assign(this, { width, zoom, sizeOf, describe });
    set(this.node, { width, height: this.height, viewBox: `0 0 ${width} ${this.height}` });
    this.layoutPieces();
  }

  /** Where a position lies, in pixels; outside the strip if it is out of sight. */
  x(position) {
    const [from, to] = this.zoom;
    return ((this.before[position] - from) / (to - from)) * this.width;
  }

  /** The position at a place, with a fraction. */
  position(x) {
    const [from, to] = this.zoom;
    return placeOf(this.before, from + ((to - from) * x) / this.width);
  }

  /** The range of the piece that was drawn at an event, in shares; nothing where there is none. */
  rangeAt({ target }) {
    const piece = this.seenPieces[[...this.pieces.children].indexOf(target.closest(".pl-piece"))];
    return piece && [this.before[piece.start], this.before[piece.stop]];
  }

  clamp(x) {
    return Math.min(Math.max(x, 0), this.width);
  }

  paint(cuts) {
    const { colours } = this;
    const xs = [0, ...cuts.map((cut) => this.clamp(this.x(cut))), this.width];
    const fills = keep(this.fills, xs.length - 1, () => svg("rect", { y: 0, height: this.height, rx: 2 }));
    for (let index = 0; index < fills.length; index++) {
      const left = xs[index] + (xs[index] > 0 ? 1 : 0);
      const right = xs[index + 1] - (xs[index + 1] < this.width ? 1 : 0);
      set(fills[index], { x: left, width: Math.max(xs[index + 1] > xs[index] ? 0.5 : 0, right - left) });
      fills[index].style.fill = colours[index % colours.length];
    }
    // Nor does a name stand under the arrow of a divider that is out of sight.
    const [first, last] = cuts.length ? [this.x(cuts[0]), this.x(cuts.at(-1))] : [0, 0];
    const [from, to] = [first < 0 ? ARROW : 0, this.width - (last > this.width ? ARROW : 0)];
    for (const { text, left, right } of this.names) {
      const isFree = left >= from && right <= to && !xs.some((x) => x > left && x < right);
      text.style.display = isFree ? "" : "none";
    }
  }

  // --- pieces: blocks, under them modules and ops where there is room

  layoutPieces() {
    const seen = this.seen();
    const { tops, heights } = rowsOf(seen.length, this.height);
    const shown = seen.flat();
    this.seenPieces = shown;
    const groups = keep(this.pieces, shown.length, makePiece);
    const names = this.blockNames(seen[0]);
    this.names = [];
    let at = 0;
    for (const [depth, pieces] of seen.entries()) {
      let free = 0; // where the last name of this row ends
      for (const [index, piece] of pieces.entries()) {
        const group = groups[at++];
        const left = this.clamp(this.x(piece.start));
        const right = this.clamp(this.x(piece.stop));
        // An opened piece has its parts below it.
        const height = depth < seen.length - 1 && !piece.isOpen ? this.height - tops[depth] : heights[depth];
        this.paintPiece(group, piece, { left, right, top: tops[depth], height, depth });
        const name = depth ? this.partName(piece, right - left) : names[index];
        const wide = this.ruler.width(name, FONT.size, FONT.weight);
        const fits = wide + 8 <= right - left || (!depth && this.isTick(name, wide, left, right, free));
        const text = group.lastChild;
        text.textContent = name && fits ? name : "";
        if (!text.textContent) continue;
        set(text, { x: (left + right) / 2, y: tops[depth] + heights[depth] / 2 + 4 });
        free = (left + right + wide) / 2 + 3;
        this.names.push({ text, left: (left + right - wide) / 2 - 3, right: free });
      }
    }
  }

  paintPiece(group, piece, { left, right, top, height, depth }) {
    const [title, rect, line] = group.children;
    group.style.setProperty("--pl-depth", depth);
    title.textContent = this.describe?.(piece) ?? piece.label;
    set(rect, { x: left, y: top, width: Math.max(0, right - left), height });
    const upper = depth ? `M${left} ${top}H${right}` : "";
    set(line, { d: `${upper}${left > 0 ? `M${left} ${top}v${height}` : ""}` });
  }

  /** The pieces in sight: blocks, then the modules and ops of those that are wide enough, once zoomed. */
  seen() {
    const { model, zoom, width } = this;
    const from = Math.floor(placeOf(this.before, zoom[0]));
    const to = Math.ceil(placeOf(this.before, zoom[1]));
    const seen = [model.pieces("block", from, to).map((piece) => ({ ...piece }))];
    for (const level of zoom[1] - zoom[0] < 1 ? ["module", "op"] : []) {
      const parts = [];
      for (const piece of seen.at(-1)) {
        const inside = model.pieces(level, piece.start, piece.stop);
        piece.isOpen = inside.length > 1 && this.x(piece.stop) - this.x(piece.start) >= inside.length * ROOM[level];
        if (piece.isOpen) parts.push(...inside.filter(({ start, stop }) => this.x(stop) > 0 && this.x(start) < width));
      }
      if (!parts.length) break;
      seen.push(parts.map((part) => ({ ...part })));
    }
    return seen;
  }

  /** What to write on the blocks: "h.3", or "3" for all of them where one would not fit. */
  blockNames(pieces) {
    const stem = ({ label }) => label.slice(0, label.lastIndexOf(".") + 1);
    const fits = (piece) => this.ruler.width(piece.label, FONT.size, FONT.weight) + 10 <= this.x(piece.stop) - this.x(piece.start);
    const tight = new Set(pieces.filter((piece) => !fits(piece)).map(stem));
    return pieces.map((piece) => (tight.has(stem(piece)) ? piece.label.slice(stem(piece).length) : piece.label));
  }

  /** Of a module's path as much of its end as fits. */
  partName({ label }, width) {
    const ends = [label, label.slice(label.lastIndexOf(".") + 1)];
    return ends.find((text) => this.ruler.width(text, FONT.size, FONT.weight) + 8 <= width) ?? "";
  }

  /** Whether a block too narrow for its number shows it all the same: the 10th, the 20th, over its nameless neighbours. */
  isTick(name, wide, left, right, free) {
    const every = [5, 10, 20, 50].find((count) => wide + 12 <= (right - left) * count);
    const middle = (left + right) / 2;
    const isInside = middle - wide / 2 > free && middle + wide / 2 < this.width;
    return every && isInside && /^\d+$/.test(name) && Number(name) % every === 0 && Number(name) > 0;
  }
}

/** How wide the parts of a piece must be on average to be shown. */
const ROOM = { module: 16, op: 24 };

/** Where the rows lie: one fills the strip, more share it. */
function rowsOf(count, height) {
  const heights = Array.from({ length: count }, () => height / count);
  return { heights, tops: heights.map((row, index) => row * index) };
}

function makePiece() {
  const group = svg("g", { class: "pl-piece" });
  group.append(svg("title"), svg("rect"), svg("path"), svg("text"));
  return group;
}
