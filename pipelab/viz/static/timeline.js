// Timelines: what ranks did and when.

import { formatSeconds, niceStep, percent, plural, tickText } from "./numbers.js";
import { el, set, svg } from "./dom.js";

export class TimelinePane {
  constructor(view) {
    this.view = view;
    this.title = el("span");
    this.stale = el("span", { class: "pl-stale" });
    this.key = el("span", { class: "pl-key" });
    this.picture = svg("svg", { class: "pl-timeline-svg", role: "img" });
    const head = el("div", { class: "pl-timeline-head" }, this.title, this.stale, this.key);
    this.node = el("section", { class: "pl-timeline", "aria-label": "Measured timeline", hidden: true }, head);
    this.node.append(this.picture);
  }

  /** Draw the report; a drag afterwards only fades it. */
  layout(width) {
    const { report } = this.view;
    this.node.hidden = !report;
    if (!report) return;
    const { ruler } = this.view;
    const left = Math.ceil(ruler.width("rank 88")) + 8;
    const right = Math.ceil(ruler.width("idle 100%")) + 10;
    const row = report.rows.length > 8 ? 18 : 22;
    const height = report.rows.length * row + 20;
    const span = width - left - right;
    const { predicted } = report;
    const end = Math.max(report.makespan_s, predicted?.makespan_s ?? 0);
    const x = (time) => left + (end ? (span * time) / end : 0);
    this.title.textContent =
      `Measured: step ${formatSeconds(report.step_s)}${predicted ? ` (${formatSeconds(predicted.makespan_s)} predicted)` : ""}, ` +
      `idle ${percent(report.idle)}, ${plural(report.num_microbatches, "micro-batch")}`;
    this.key.textContent = `${predicted ? "outlined: predicted · " : ""}hatched: waiting · grey: moving data`;
    set(this.picture, {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "aria-label":
        `${this.title.textContent}. ` + report.rank_idle.map((idle, rank) => `Rank ${rank} idle ${percent(idle)}.`).join(" "),
    });
    const hatch = svg("pattern", {
      id: `${this.view.id}-wait`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
    });
    hatch.append(svg("path", { class: "pl-hatch", d: "M0 0V6" }));
    const parts = [hatch];
    for (const [rank, events] of report.rows.entries()) {
      parts.push(...this.row(rank, events, predicted?.rows[rank] ?? [], x, rank * row, row - 4));
      parts.push(svg("text", { x: 0, y: rank * row + row / 2 + 2, text: `rank ${rank}` }));
      const idle = svg("text", { x: width, y: rank * row + row / 2 + 2, "text-anchor": "end" });
      parts.push(set(idle, { text: `idle ${percent(report.rank_idle[rank])}` }));
    }
    this.picture.replaceChildren(...parts, ...this.axis(end, x, report.rows.length * row, width - right));
  }

  row(rank, events, outlines, x, y, height) {
    const { ruler, colours, id } = this.view;
    const end = this.view.report.makespan_s;
    const ground = { x: x(0), y, width: Math.max(0, x(end) - x(0)), height };
    const parts = [
      svg("rect", { class: "pl-ground", ...ground }),
      svg("rect", { ...ground, fill: `url(#${id}-wait)` }),
    ];
    const numbers = [];
    for (const [kind, stage, microbatch, from, to] of events) {
      const span = Math.max(0.5, x(to) - x(from));
      const moving = kind === "send" || kind === "recv";
      const box = svg("rect", { class: moving ? "pl-moving" : "pl-work", x: x(from), width: span, rx: moving ? 0 : 2 });
      set(box, moving ? { y: y + height / 2 - 2, height: 4 } : { y, height });
      if (!moving) box.style.fill = colours[stage % colours.length];
      const does = { F: "forward", B: "backward", send: "sends", recv: "receives" }[kind] ?? kind;
      const title = `rank ${rank}, stage ${stage}, micro-batch ${microbatch}: ${does}, ${formatSeconds(to - from)}`;
      box.append(svg("title", { text: title }));
      parts.push(box);
      if (!moving && ruler.width(`${microbatch}`) + 4 <= span) {
        const place = { x: x(from) + span / 2, y: y + height / 2 + 4, "text-anchor": "middle" };
        const number = svg("text", { class: "pl-on-colour", ...place, text: `${microbatch}` });
        number.style.stroke = colours[stage % colours.length];
        numbers.push(number);
      }
    }
    for (const [from, to] of outlines) {
      const place = { x: x(from), y: y + 0.5, width: Math.max(0.5, x(to) - x(from)), height: height - 1 };
      parts.push(svg("rect", { class: "pl-predicted", ...place }));
    }
    return [...parts, ...numbers]; // no outline strikes a number through
  }

  axis(end, x, y, right) {
    const parts = [];
    const { ruler } = this.view;
    const step = niceStep(end / Math.max(2, (right - x(0)) / 130));
    for (let index = 0; step && index * step <= end * 1.0001; index++) {
      const time = index * step;
      const text = tickText(time, step, end);
      const half = ruler.width(text) / 2;
      parts.push(svg("path", { class: "pl-axis", d: `M${x(time)} ${y - 2}v4` }));
      if (x(time) + half <= right + half) {
        const place = { x: Math.min(x(time), right + 4 - half), y: y + 15, "text-anchor": "middle" };
        parts.push(svg("text", { ...place, text }));
      }
    }
    return parts;
  }

  paint() {
    const { cuts, report } = this.view;
    if (!report) return;
    const stale = report.cuts.join() !== cuts.join();
    this.node.classList.toggle("pl-faded", stale);
    this.stale.textContent = stale ? "measured for the previous split" : "";
  }
}
