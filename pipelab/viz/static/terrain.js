// The landscape under the divider in hand, drawn: a bar per place, low where the split is good, and a line for bytes.

import { el, set, svg } from "./dom.js";
import { bestOf, binned, landscape, leveled, placesOf } from "./landscape.js";

const HEIGHT = 30;
const TALLEST = 20; // pixels of the worst place

export class Terrain {
  constructor(view) {
    this.view = view;
    this.picture = svg("svg", { height: HEIGHT, "aria-hidden": "true" });
    this.ground = svg("rect", { class: "pl-terrain-ground", height: HEIGHT });
    this.bars = svg("path", { class: "pl-terrain-bars" });
    this.bytes = svg("path", { class: "pl-terrain-bytes" });
    this.best = svg("circle", { class: "pl-terrain-best", r: 3.5 });
    this.word = svg("text", { y: 9 }); // above the numbers of the stages
    this.picture.append(this.ground, this.bars, this.bytes, this.best, this.word);
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
    const shown = [index, cuts.toSpliced(index, 1).join(), level, width, widthBy, ...zoom].join(" ");
    if (this.shown === shown && this.costs === costs) return;
    Object.assign(this, { shown, costs });
    this.draw(index, x);
  }

  draw(index, x) {
    const { model, costs, cuts, level, width } = this.view;
    const places = placesOf(model, level, cuts, index);
    const { values, bytes } = landscape(costs, cuts, index, places);
    const xs = places.map(x);
    const isFlat = values.every((value) => value === values[0]);
    set(this.picture, { width, viewBox: `0 0 ${width} ${HEIGHT}` });
    this.drawBars(binned(xs, leveled(values), width));
    const best = xs[bestOf(values, bytes)];
    set(this.best, { cx: best, cy: height(0) - 4 });
    this.best.style.display = isFlat || !(best >= 0 && best <= width) ? "none" : "";
    const line = binned(xs, leveled(bytes), width).map(([at, share]) => `${at.toFixed(1)} ${height(share).toFixed(1)}`);
    set(this.bytes, { d: line.length > 1 ? `M${line.join("L")}` : "" });
    const clamp = (at) => Math.min(Math.max(at, 0), width);
    this.drawWord(clamp((xs[0] ?? 0) - 8), clamp((xs.at(-1) ?? 0) + 8), isFlat);
  }

  drawBars(bars) {
    const gap = bars.length > 1 ? (bars.at(-1)[0] - bars[0][0]) / (bars.length - 1) : 8;
    set(this.bars, {
      d: bars.map(([at, share]) => `M${at.toFixed(1)} ${HEIGHT - 1}V${(height(share) - 1).toFixed(1)}`).join(""),
      "stroke-width": Math.min(Math.max(gap * 0.6, 1), 7),
    });
  }

  /** What it is, beside the bars where there is room, else over them. */
  drawWord(left, right, isFlat) {
    const { costs, ruler, width } = this.view;
    const what = costs.timed ? "time of the slowest stage" : "size of the largest stage";
    const texts = isFlat
      ? [`the ${what} is the same everywhere`, "the same everywhere"]
      : [`low is good: ${what} · dotted: bytes that cross`, "low is good · dotted: bytes", "low is good"];
    const side = (text) => {
      const wide = ruler.width(text) + 6;
      return right + wide <= width ? right + 2 : left >= wide ? left + 2 - wide : undefined;
    };
    const text = texts.find((text) => side(text) !== undefined) ?? texts.at(-1);
    set(this.word, { x: side(text) ?? width - ruler.width(text) - 4, text });
    set(this.ground, { x: left, width: right - left });
  }
}

const height = (share) => HEIGHT - 3 - share * TALLEST;
