// A track: the rows of one timeline, predicted or measured, drawn with a few paths whatever the number of events.

import { set, svg } from "./dom.js";

export const DOES = { F: "forward", B: "backward", I: "gradient of inputs", W: "gradient of weights", send: "sends", recv: "receives" };
export const isWork = (kind) => kind !== "send" && kind !== "recv";

// Lower rows hold no text of 11 px.
const NUMBERS_FROM = 12;
// More texts than this are neither read nor painted in time: then every second, fifth or tenth micro-batch is numbered.
const MOST_NUMBERS = 200;
const toTenth = (value) => Math.round(value * 10) / 10;
const boxPath = (x, y, width, height) => `M${toTenth(x)} ${y}h${toTenth(width)}v${height}h${-toTenth(width)}z`;

/** A pattern that tells backward work from forward without its colour. */
function makeTexture(id, kind) {
  const size = kind === "W" ? 4 : 6;
  const node = svg("pattern", { id: `${id}-${kind}`, width: size, height: size, patternUnits: "userSpaceOnUse" });
  if (kind !== "W") set(node, { patternTransform: "rotate(-45)" });
  node.append(svg("path", { class: `pl-texture-${kind}`, d: kind === "W" ? "M1 1h1v1h-1z" : "M0 0V6" }));
  return node;
}

/**
 * Rows of a timeline in a `<g>`. The caller owns the `<svg>`, labels and axis around it.
 *
 * `draw` takes `{rows, makespan_s}` and where: time 0 is at `left`, `end_s` is `width` px further; the first row is at
 * `top`, a row is `rowHeight` high and the next one `pitch` lower. `lit` is the one micro-batch that stands out, or null.
 */
export class Track {
  constructor({ colours, ruler, id }) {
    Object.assign(this, { colours, ruler, id });
    this.ground = svg("path", { class: "pl-ground" });
    this.moving = svg("path", { class: "pl-moving" });
    this.movingLit = svg("path", { class: "pl-moving pl-lit" });
    this.works = svg("g");
    this.textures = svg("g");
    this.way = svg("path", { class: "pl-way" });
    this.numbers = svg("g");
    this.paths = new Map();
    this.pool = [];
    const patterns = svg("defs", {});
    patterns.append(...["B", "I", "W"].map((kind) => makeTexture(id, kind)));
    this.node = svg("g", { class: "pl-track" });
    this.node.append(patterns, this.ground, this.moving, this.movingLit, this.works, this.textures);
    this.node.append(this.way, this.numbers);
  }

  draw(timeline, { left, width, end_s, rowHeight, pitch = rowHeight + 4, top = 0, lit = null }) {
    this.place = { left, width, end_s, rowHeight, pitch, top, lit, scale: end_s ? width / end_s : 0 };
    this.parts = new Map();
    this.labels = [];
    this.passed = [];
    const count = timeline.rows.length * (1 + Math.max(0, ...(timeline.rows[0] ?? []).map((event) => event[2])));
    this.every = [1, 2, 5, 10, 20, 50].find((every) => count / every <= MOST_NUMBERS) ?? 100;
    const span = timeline.makespan_s * this.place.scale;
    let ground = "";
    for (const [rank, events] of timeline.rows.entries()) {
      const y = top + rank * pitch;
      ground += boxPath(left, y, span, rowHeight);
      for (const event of events) this.add(event, y);
    }
    set(this.ground, { d: ground });
    this.fill();
    this.write();
    set(this.way, { d: this.lineOfWay() });
  }

  /** From where the lit micro-batch leaves a stage to where the next one takes it up. */
  lineOfWay() {
    const passed = this.passed.sort((a, b) => a.x - b.x);
    const legs = passed.slice(1).map(({ x, y }, index) => `M${passed[index].end} ${passed[index].y}L${x} ${y}`);
    return legs.join("");
  }

  /** Put an event into the path of its look. */
  add([kind, stage, microbatch, from, to], y) {
    const { left, scale, rowHeight, lit } = this.place;
    const x = left + from * scale;
    const span = (to - from) * scale;
    const bright = lit === microbatch ? " pl-lit" : "";
    if (!isWork(kind)) {
      this.extend(`moving${bright}`, boxPath(x, y + rowHeight / 2 - 1.5, Math.max(0.3, span), 3));
      return;
    }
    // Neighbours are told apart by a gap, as far as there is room for one.
    const d = boxPath(x, y, Math.max(0.3, span - Math.min(1, span / 5)), rowHeight);
    this.extend(`${kind} ${stage}${bright}`, d);
    if (bright && kind !== "W") this.passed.push({ x: toTenth(x), end: toTenth(x + span), y: y + rowHeight / 2 });
    if (kind !== "F") this.extend(`texture ${kind}${bright}`, d);
    if (rowHeight >= NUMBERS_FROM) this.label(kind, microbatch, x + span / 2, y, span, bright);
  }

  extend(key, d) {
    const parts = this.parts.get(key);
    if (parts) parts.push(d);
    else this.parts.set(key, [d]);
  }

  /** The micro-batch's number, behind the letter of its kind where both fit. */
  label(kind, microbatch, middle, y, span, bright) {
    const { ruler } = this;
    if (microbatch % this.every && !bright) return;
    let text = `${microbatch}`;
    const room = span - 3 - ruler.width(text);
    if (room < 0) return;
    if (kind !== "F" && ruler.width(kind) <= room) text = kind + text;
    this.labels.push([text, `pl-on-${kind}${bright}`, toTenth(middle), y + this.place.rowHeight / 2 + 4]);
  }

  fill() {
    const { parts, paths } = this;
    set(this.moving, { d: parts.get("moving")?.join("") ?? "" });
    set(this.movingLit, { d: parts.get("moving pl-lit")?.join("") ?? "" });
    for (const key of parts.keys()) if (!paths.has(key) && !key.startsWith("moving")) paths.set(key, this.makePath(key));
    for (const [key, path] of paths) set(path, { d: parts.get(key)?.join("") ?? "" });
  }

  makePath(key) {
    const [first, second, lit = ""] = key.split(" ");
    if (first === "texture") {
      const path = svg("path", { class: `pl-textured ${lit}`.trim(), fill: `url(#${this.id}-${second})` });
      this.textures.append(path);
      return path;
    }
    const path = svg("path", { class: `pl-work pl-work-${first} ${lit}`.trim() });
    path.style.setProperty("--pl-stage", this.colours[second % this.colours.length]);
    this.works.append(path);
    return path;
  }

  /** Texts are reused. A group around each is what moves: moving the text itself would lay it out again. */
  write() {
    const { labels, pool } = this;
    while (pool.length < labels.length) pool.push(this.makeNumber());
    for (const [index, entry] of pool.entries()) {
      const [text, look, x, y] = labels[index] ?? ["", entry.look, entry.x, entry.y];
      if (entry.text !== text) entry.node.textContent = entry.text = text;
      if (entry.look !== look) set(entry.node, { class: `pl-on-colour ${(entry.look = look)}` });
      if (entry.x === x && entry.y === y) continue;
      [entry.x, entry.y] = [x, y];
      entry.group.setAttribute("transform", `translate(${x} ${y})`);
    }
  }

  makeNumber() {
    const group = this.numbers.appendChild(svg("g"));
    return { group, node: group.appendChild(svg("text", { "text-anchor": "middle" })), text: "" };
  }
}

/** What a rank does at a time: work before transfers, else the wait between; null behind the end. */
export function eventAt(timeline, rank, time) {
  const events = timeline.rows[rank] ?? [];
  if (time < 0 || time > timeline.makespan_s) return null;
  const under = events.filter(([, , , from, to]) => from <= time && time < to);
  const found = under.find(([kind]) => isWork(kind)) ?? under[0];
  if (found) return found;
  const from = Math.max(0, ...events.filter((event) => event[4] <= time).map((event) => event[4]));
  const to = Math.min(timeline.makespan_s, ...events.filter((event) => event[3] > time).map((event) => event[3]));
  return ["wait", null, null, from, to];
}
