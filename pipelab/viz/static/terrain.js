// The landscape under the divider in hand, drawn: a bar per place, low where the split is good, and a line for bytes.

import { el, set, svg } from "./dom.js";
import { binned, landscape, leveled, placesOf } from "./landscape.js";

const HEIGHT = 34;
const TALLEST = 24; // pixels of the worst place

export class Terrain {
  constructor(view) {
    this.view = view;
    this.picture = svg("svg", { height: HEIGHT, "aria-hidden": "true" });
    this.bars = svg("path", { class: "pl-terrain-bars" });
    this.bytes = svg("path", { class: "pl-terrain-bytes" });
    this.best = svg("circle", { class: "pl-terrain-best", r: 3.5 });
    this.word = svg("text", { "text-anchor": "end", y: 10 });
    this.picture.append(this.bytes, this.bars, this.best, this.word);
    this.node = el("div", { class: "pl-terrain", hidden: true }, this.picture);
  }

  /** Show it for a divider; null hides it. It is computed when the divider is taken up, not while it moves. */
  show(index, x) {
    this.node.hidden = index === null;
    if (index === null) {
      this.shown = null;
      return;
    }
    const { costs, cuts, level, width, widthBy, zoom } = this.view;
    const others = cuts.toSpliced(index, 1);
    const shown = [index, others.join(), level, width, widthBy, ...zoom].join(" ");
    if (this.shown === shown && this.costs === costs) return;
    Object.assign(this, { shown, costs });
    this.draw(index, x);
  }

  draw(index, x) {
    const { model, costs, cuts, level, width } = this.view;
    const places = placesOf(model, level, cuts, index);
    const { values, bytes } = landscape(costs, cuts, index, places);
    const xs = places.map(x);
    const bars = binned(xs, leveled(values), width);
    const gap = bars.length > 1 ? (bars.at(-1)[0] - bars[0][0]) / (bars.length - 1) : 8;
    const y = (share) => HEIGHT - 4 - share * TALLEST;
    set(this.picture, { width, viewBox: `0 0 ${width} ${HEIGHT}` });
    set(this.bars, {
      d: bars.map(([at, share]) => `M${at.toFixed(1)} ${HEIGHT - 1}V${(y(share) - 1).toFixed(1)}`).join(""),
      "stroke-width": Math.min(Math.max(gap * 0.5, 1), 7),
    });
    const line = binned(xs, leveled(bytes), width).map(([at, share]) => `${at.toFixed(1)} ${y(share).toFixed(1)}`);
    set(this.bytes, { d: line.length > 1 ? `M${line.join("L")}` : "" });
    const least = bars.reduce((found, bar) => (bar[1] < found[1] ? bar : found), [-99, Infinity]);
    const isBest = least[1] === 0;
    set(this.best, { cx: isBest ? least[0] : -99, cy: y(0) - 5 });
    const words = costs.timed ? "low: a faster bottleneck" : "low: a smaller largest stage";
    set(this.word, { x: width - 4, text: `${words} · line: bytes that cross` });
  }
}
