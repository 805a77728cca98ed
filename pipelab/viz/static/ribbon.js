// The ribbon: the model from input to output, and its dividers.

import { firstAtLeast, formatBytes, formatCount, plural } from "./numbers.js";
import { el, keep, set, svg } from "./dom.js";
import { cutX, pieceEdges } from "./layout.js";

const RIBBON = { top: 12, height: 40, bottom: 6 };

export class Ribbon {
  constructor(view) {
    this.view = view;
    this.picture = svg("svg", { class: "pl-ribbon-svg", "aria-hidden": "true" });
    this.fills = svg("g");
    this.ticks = svg("path", { class: "pl-ticks" });
    this.pieces = svg("g");
    this.handles = el("div", { class: "pl-handles" });
    this.tip = el("div", { class: "pl-tip", hidden: true });
    this.picture.append(this.fills, this.ticks, this.pieces);
    this.node = el("div", { class: "pl-ribbon" }, this.picture, this.handles, this.tip);
  }

  /** Draw what a drag does not change: the pieces, their names, and a tick for each legal cut. */
  layout(width) {
    const { model, ruler, level } = this.view;
    const { top, height, bottom } = RIBBON;
    this.width = width;
    this.edges = pieceEdges(model, width);
    const stops = model.data.blocks.map(([, , stop]) => stop);
    this.x = (position) => cutX(model, this.edges, position);
    this.stops = stops;
    set(this.picture, { width, height: top + height + bottom, viewBox: `0 0 ${width} ${top + height + bottom}` });
    this.names = [];
    const names = this.pieceNames();
    const pieces = model.data.blocks.map(([label, start, stop], index) => {
      const x = this.edges[index];
      const span = this.edges[index + 1] - x;
      const group = svg("g", { class: "pl-piece" });
      const title = svg("title", { text: `${label}: ${formatCount(model.size(start, stop).params)} parameters` });
      group.append(title, svg("rect", { x, y: top, width: span, height }));
      if (index) group.append(svg("path", { d: `M${x} ${top}v${height}` }));
      const name = names[index];
      const wide = ruler.width(name, 11, 500);
      if (wide + 10 <= span || this.isTick(name, wide, index)) {
        const text = svg("text", { x: x + span / 2, y: top + height / 2 + 4, text: name });
        group.append(text);
        this.names.push({ text, left: x + (span - wide) / 2 - 3, right: x + (span + wide) / 2 + 3 });
      }
      return group;
    });
    this.pieces.replaceChildren(...pieces);
    const cuts = model.byLevel[level];
    const marks = cuts.length <= width / 3 ? cuts : [];
    set(this.ticks, { d: marks.map((cut) => `M${this.x(cut).toFixed(1)} ${top + height}v4`).join("") });
  }

  /** Whether a piece too narrow for its number shows it all the same: the 10th, the 20th, over its nameless neighbours. */
  isTick(name, wide, index) {
    const left = this.edges[index];
    const span = this.edges[index + 1] - left;
    const every = [5, 10, 20, 50].find((count) => wide + 12 <= span * count);
    const overhang = (wide - span) / 2;
    const inside = left - overhang > (this.names.at(-1)?.right ?? 0) && this.edges[index + 1] + overhang < this.width;
    return every && inside && /^\d+$/.test(name) && Number(name) % every === 0 && Number(name) > 0;
  }

  /** What to write on the pieces: "h.3", or "3" for all of them where one would not fit. */
  pieceNames() {
    const { blocks } = this.view.model.data;
    const stem = (label) => label.slice(0, label.lastIndexOf(".") + 1);
    const fits = ([label], index) => this.view.ruler.width(label, 11, 500) + 10 <= this.edges[index + 1] - this.edges[index];
    const tight = new Set(blocks.filter((block, index) => !fits(block, index)).map(([label]) => stem(label)));
    return blocks.map(([label]) => (tight.has(stem(label)) ? label.slice(stem(label).length) : label));
  }

  paint() {
    const { top, height } = RIBBON;
    const { colours, cuts, stages } = this.view;
    const xs = [0, ...cuts.map(this.x), this.width];
    this.xs = xs;
    const fills = keep(this.fills, stages.length, () => svg("rect", { y: top, height, rx: 2 }));
    for (const [index, fill] of [...fills].entries()) {
      const left = xs[index] + (index ? 1 : 0);
      set(fill, { x: left, width: Math.max(0.5, xs[index + 1] - left - (index < cuts.length ? 1 : 0)) });
      fill.style.fill = colours[index % colours.length];
    }
    for (const { text, left, right } of this.names) {
      const crossed = xs.some((x) => x > left && x < right);
      text.style.display = crossed ? "none" : "";
    }
    const handles = keep(this.handles, cuts.length, (index) => this.view.dividers.make(index));
    for (const [index, handle] of [...handles].entries()) this.paintHandle(handle, index, cuts, xs);
    this.node.classList.toggle("pl-dragging", this.view.drag !== null);
  }

  paintHandle(handle, index, cuts, xs) {
    const { model, level } = this.view;
    const x = xs[index + 1];
    const left = Math.min(9, Math.max(3, (x - xs[index]) / 2));
    const right = Math.min(9, Math.max(3, (xs[index + 2] - x) / 2));
    handle.style.transform = `translateX(${x.toFixed(2)}px)`;
    handle.firstChild.style.left = `${-left}px`;
    handle.firstChild.style.width = `${left + right}px`;
    const above = index ? cuts[index - 1] : 0;
    const below = index < cuts.length - 1 ? cuts[index + 1] : model.numOps;
    set(handle, {
      "data-split": index + 1,
      "aria-label": `Split ${index + 1} between stage ${index} and ${index + 1}`,
      "aria-valuemin": Math.min(cuts[index], model.step(level, cuts[index], -Infinity, above, below)),
      "aria-valuemax": Math.max(cuts[index], model.step(level, cuts[index], Infinity, above, below)),
      "aria-valuenow": cuts[index],
      "aria-valuetext": model.cut(cuts[index]).label,
    });
  }

  /** The legal cut nearest to a place on the ribbon, for this divider: between its neighbours. */
  positionAt(x, index) {
    const { model, level, dividers, data } = this.view;
    const block = Math.min(Math.max(firstAtLeast(this.edges, x) - 1, 0), this.stops.length - 1);
    const [, start, stop] = data.blocks[block];
    const share = (x - this.edges[block]) / (this.edges[block + 1] - this.edges[block]);
    return model.nearest(level, start + share * (stop - start), ...dividers.room(index));
  }

  /** Say what crosses the cut in hand; no index hides it. */
  showTip(index) {
    this.tip.hidden = index === null;
    this.view.hint.node.classList.toggle("pl-covered", index !== null);
    if (index === null) return;
    const cut = this.view.model.cut(this.view.cuts[index]);
    const texts = crossing(this.view.model, cut).map((what) => `${cut.label}: ${what}${formatBytes(cut.bytes)} per batch`);
    const room = this.width - 20;
    // One line: a second would cover the verdict, which is read during a drag.
    const fits = texts.find((text) => this.view.ruler.width(text, 12) <= room);
    this.tip.textContent = fits ?? this.view.ruler.fit(texts.at(-1), room, 12);
    const half = this.tip.offsetWidth / 2;
    const x = Math.min(Math.max(this.x(cut.position), half), this.width - half);
    this.tip.style.transform = `translate(${Math.round(x - half)}px, -100%)`;
  }
}

/** What is alive at a cut, from many words to none. */
export function crossing({ data }, { alive }) {
  const first = alive.slice(0, 3).map((tensor) => data.tensors[tensor][0]);
  const more = alive.length > 3 ? [`${alive.length - 3} more`] : [];
  const said = (texts) => (texts.length ? `${[...texts, ...more].join(" + ")}, ` : "");
  return [said(first), said(first.map((text) => text.replace(/ \([^()]*\)$/, ""))), `${plural(alive.length, "value")}, `, ""];
}
