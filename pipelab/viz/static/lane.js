// One timeline of a comparison: its caption, a row per rank, and the line of the cursor that all share.

import { el, keep, set, svg } from "./dom.js";
import { Track } from "./track.js";

const CAPTION = 4;

export class Lane {
  constructor({ colours, ruler, id, timeline, hasOwnAxis }) {
    Object.assign(this, { ruler, timeline, hasOwnAxis });
    this.caption = el("div", { class: "pl-lane-caption" });
    this.ranks = svg("g");
    this.track = new Track({ colours, ruler, id });
    this.line = svg("path", { class: "pl-cursor" });
    this.picture = svg("svg", { class: "pl-lane-svg", role: "img" });
    this.picture.append(this.ranks, this.track.node, this.line);
    this.node = el("div", { class: "pl-lane" }, this.caption, this.picture);
  }

  /** Draw it behind a margin of `left`, with `end_s` at the right. */
  layout({ width, left, end_s, text }) {
    const count = this.timeline.rows.length;
    const rowHeight = count > 8 ? 10 : 14;
    const pitch = rowHeight + 2;
    const height = count * pitch + CAPTION;
    Object.assign(this, { left, span: width - left, height });
    this.end_s = this.hasOwnAxis ? this.timeline.makespan_s : end_s;
    this.caption.textContent = text;
    set(this.picture, { width, height, viewBox: `0 0 ${width} ${height}`, "aria-label": text });
    this.track.draw(this.timeline, { left, width: this.span, end_s: this.end_s, rowHeight, pitch });
    const labels = keep(this.ranks, Math.ceil(count / (count > 8 ? 2 : 1)), () => svg("text"));
    for (const [index, label] of [...labels].entries()) {
      const rank = count > 8 ? 2 * index : index;
      set(label, { x: 0, y: rank * pitch + rowHeight / 2 + 4, text: `rank ${rank}` });
    }
  }

  /** The time at a place, in pixels from the lane's left edge; null outside. */
  timeAt = (x) => {
    const time = ((x - this.left) / this.span) * this.end_s;
    return time >= 0 && time <= this.end_s ? time : null;
  };

  paint(time) {
    const isSeen = time !== null && !this.hasOwnAxis;
    set(this.line, { d: isSeen ? `M${this.left + (time / this.end_s) * this.span} -2V${this.height}` : "" });
  }
}
