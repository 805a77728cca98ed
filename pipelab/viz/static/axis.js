// The time axis under tracks, and times as text in its one unit.

import { fixed, niceStep } from "./numbers.js";
import { keep, set, svg } from "./dom.js";

/** The unit for times up to `end_s`; where times are only shares, per cent of the step. */
export function timeUnit(end_s, share = false) {
  if (share) return { factor: end_s / 100, name: "%" };
  const [factor, name] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([factor]) => end_s >= factor) ?? [1e-6, "µs"];
  return { factor, name };
}

/** A time in a unit, three digits at the most for the longest; without the unit's name, see `withUnit`. */
export function inUnit(time, unit, end_s) {
  const size = end_s / unit.factor;
  return fixed(time / unit.factor, unit.name === "%" || size >= 99.5 ? 0 : size >= 9.95 ? 1 : 2);
}

export const withUnit = (text, unit) => `${text}\u00a0${unit.name}`;

/** Ticks at nice times, with texts that stay inside. */
export class TimeAxis {
  constructor(ruler) {
    this.ruler = ruler;
    this.ticks = svg("path", { class: "pl-axis" });
    this.texts = svg("g", { class: "pl-axis-texts" });
    this.node = svg("g");
    this.node.append(this.ticks, this.texts);
  }

  /** Time 0 is at `left`, `end_s` is `width` px further; the ticks hang from `y`. */
  draw({ left, width, end_s, y, unit }) {
    const end = end_s > 0 && width > 0 ? end_s / unit.factor : 0;
    const step = niceStep((end * Math.max(60, Math.min(110, width / 3))) / width);
    const digits = step ? Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) : 0;
    const count = step ? Math.floor((end / step) * 1.0001) + 1 : 0;
    let d = "";
    const texts = keep(this.texts, count, () => svg("text", { "text-anchor": "middle" }));
    for (let index = 0; index < count; index++) {
      const time = index * step;
      const x = Math.round((left + (time / end) * width) * 10) / 10;
      d += `M${x} ${y}v4`;
      const text = time ? withUnit(fixed(time, digits), unit) : "0";
      const half = this.ruler.width(text) / 2;
      if (texts[index].textContent !== text) texts[index].textContent = text;
      set(texts[index], { x: Math.min(x, left + width - half), y: y + 16 });
    }
    set(this.ticks, { d });
  }
}
