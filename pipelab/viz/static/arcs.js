// Brackets between stages that share a weight or skip over others.

import { el, keep, set, svg } from "./dom.js";
import { formatBytes } from "./numbers.js";
import { linkText } from "./links.js";

const LANE_HEIGHT = 20;
const MAX_ARCS = 3;

export class Arcs {
  constructor(view) {
    this.view = view;
    this.picture = svg("svg", { class: "pl-links", "aria-hidden": "true" });
    this.list = el("div", { class: "pl-links-text" });
    this.node = el("div", { class: "pl-links-pane" }, this.picture, this.list);
  }

  paint() {
    const { width } = this.view;
    const { grid, placed: corners, links: { arcs, broadcasts } } = this.view.boxes;
    const shown = arcs.slice(0, arcs.length > MAX_ARCS ? MAX_ARCS - 1 : MAX_ARCS);
    const drawn = grid.rows === 1;
    const texts = [
      ...(drawn ? [] : shown.map((link) => `${linkText(link)} (stages ${listed(link.ends)})`)),
      ...(arcs.length > shown.length ? [`and ${arcs.length - shown.length} more links between stages`] : []),
      ...(grid.narrow ? broadcastTexts(broadcasts) : []),
    ];
    const lines = keep(this.list, texts.length, () => el("div"));
    for (const [index, text] of texts.entries()) {
      lines[index].textContent = this.view.ruler.fit(text, width);
      lines[index].title = text;
    }
    const height = drawn ? shown.length * LANE_HEIGHT : 0;
    this.picture.style.display = height ? "" : "none";
    set(this.picture, { width, height, viewBox: `0 0 ${width} ${height || 1}` });
    const lanes = keep(this.picture, drawn ? shown.length : 0, () => {
      const lane = svg("g");
      lane.append(svg("path"), svg("text"), svg("title"));
      return lane;
    });
    for (const [index, lane] of [...lanes].entries()) this.paintLane(lane, index, shown[index], corners, grid, width);
  }

  /** A bracket from the first to the last stage it joins, with its text in the middle, else beside it. */
  paintLane(lane, index, link, corners, { box }, width) {
    const { ruler } = this.view;
    const [path, text, title] = lane.children;
    const ends = link.ends.map((stage) => corners[stage][0] + box / 2);
    const [left, right] = [ends[0], ends.at(-1)];
    const y = index * LANE_HEIGHT + 12;
    const full = linkText(link);
    const wide = ruler.width(full) + 12;
    // Where there is room: in the bracket, right of it, left of it; if nowhere, as much as fits in the largest.
    const rooms = [right - left - 16, width - right, left];
    const room = rooms.some((size) => size >= wide) ? rooms.findIndex((size) => size >= wide) : rooms.indexOf(Math.max(...rooms));
    const label = ruler.fit(full, rooms[room] - 12);
    const half = ruler.width(label) / 2 + 6;
    const middle = [(left + right) / 2, right + half, left - half][room];
    const inText = (x) => x > middle - half && x < middle + half;
    const up = ends.map((x) => `M${x} ${y - 9}V${inText(x) ? y - 6 : y}`).join("");
    const line = room ? `M${left} ${y}H${right}` : `M${left} ${y}H${middle - half}M${middle + half} ${y}H${right}`;
    set(path, { d: up + line });
    set(lane, { class: `pl-link pl-${link.kind}` });
    set(text, { x: middle, y: y + 4, text: label });
    set(title, { text: full });
  }
}

/** What many stages read, where their boxes have no room for a badge. */
function broadcastTexts(broadcasts) {
  if (broadcasts.length < 3) {
    return broadcasts.map(({ brief, name, shape, bytes, readers }) => `${brief}, read by ${readers.length} stages: ${name} (${shape}), ${formatBytes(bytes)}`);
  }
  const bytes = broadcasts.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const names = [...new Set(broadcasts.map(({ brief }) => brief))];
  return [`read by many stages: ${names.join(", ")}, ${formatBytes(bytes)} together`];
}

const listed = (ends) => (ends.length > 4 ? `${ends.slice(0, 3).join(", ")}…` : ends.join(" and "));
