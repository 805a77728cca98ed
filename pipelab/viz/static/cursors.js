// The two cursors of a comparison: a place along the model, and a time of the step. Each is a line of text above or
// below what it moves over, a slider for the keyboard, and paints itself in every row.

import { formatSeconds } from "./numbers.js";
import { OWN_KEYS, el, set, svg } from "./dom.js";
import { zoomedByKey } from "./zoom.js";
import { TimeAxis, timeUnit } from "./axis.js";

const STEPS = 24;

function sliderLine(name, label, last) {
  const range = { "aria-valuemin": 0, "aria-valuemax": last, "aria-valuenow": 0 };
  return el("div", { class: name, role: "slider", tabindex: "0", "aria-label": label, ...range, ...OWN_KEYS });
}

/** Show it on a focus by keys, hide it when the focus goes, and let `press` handle keys: true if it knew one. */
function listenToKeys(node, { show, hide, press, signal }) {
  const on = (event, listener) => node.addEventListener(event, listener, { signal });
  on("focus", () => node.matches(":focus-visible") && show());
  on("blur", hide);
  on("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !press(event)) return;
    event.preventDefault();
    event.stopPropagation();
  });
}

/** Where an arrow key, Home or End leads from `at`; undefined for other keys. */
function moved(key, at, step, first, last) {
  const [less, more] = [at - step, at + step];
  const steps = { ArrowLeft: less, ArrowDown: less, ArrowRight: more, ArrowUp: more, Home: first, End: last };
  return key in steps ? Math.min(Math.max(steps[key], first), last) : undefined;
}

/** Centre a text at `x`, inside the width. */
function moveTo(node, x, width) {
  const half = node.offsetWidth / 2;
  node.style.transform = `translateX(${Math.round(Math.min(Math.max(x - half, 0), width - 2 * half))}px)`;
}

/** The place along the model: says which block lies there. */
export class PlaceCursor {
  constructor(view) {
    this.view = view;
    this.place = null;
    this.blocks = view.model.data.blocks;
    this.text = el("span");
    this.node = sliderLine("pl-place", "Place along the model", Math.max(0, this.blocks.length - 1));
    this.node.append(this.text);
    listenToKeys(this.node, {
      show: () => this.set(this.place ?? this.middle(0)),
      hide: () => this.set(null),
      press: (event) => this.press(event),
      signal: view.listening.signal,
    });
  }

  blockAt(place) {
    const index = this.blocks.findIndex(([, , stop]) => place < stop);
    return index < 0 ? this.blocks.length - 1 : index;
  }

  middle(block) {
    const [, start, stop] = this.blocks[block];
    return (start + stop) / 2;
  }

  /** A position, perhaps with a fraction; null hides it. */
  set(place) {
    const { rows, width } = this.view;
    this.place = place;
    for (const row of rows) row.paintPlace(place);
    const block = place === null ? 0 : this.blockAt(place);
    const [label] = this.blocks[block];
    this.text.textContent = place === null ? "" : label;
    if (place !== null) moveTo(this.text, rows[0].x(place), width);
    const told = rows.map((row) => `${row.entry.name}: ${row.textsAt(place ?? 0)[1]}`);
    set(this.node, { "aria-valuenow": block, "aria-valuetext": `${label}. ${told.join("; ")}` });
  }

  press({ key, shiftKey }) {
    const { view } = this;
    const zoom = shiftKey || !key.startsWith("Arrow") ? zoomedByKey(view.zoom, key) : undefined;
    const at = this.place === null ? -1 : this.blockAt(this.place);
    const block = moved(key, at, 1, 0, this.blocks.length - 1);
    if (zoom) view.setZoom(zoom);
    else if (key === "Escape") this.set(null);
    else if (block !== undefined) this.showBlock(block);
    return zoom !== undefined || key === "Escape" || block !== undefined;
  }

  /** Move to a block, and that into sight. */
  showBlock(block) {
    const { view } = this;
    const place = this.middle(block);
    view.bringIntoSight(view.rows[0].x(place) / view.width);
    this.set(place);
  }
}

/** The time of the step, on the axis that all timelines share. */
export class TimeCursor {
  constructor(view, end_s) {
    Object.assign(this, { view, end_s, time: null });
    this.axis = new TimeAxis(view.ruler);
    this.picture = svg("svg", { "aria-hidden": "true" });
    this.picture.append(this.axis.node);
    this.text = el("span");
    this.node = sliderLine("pl-time", "Time of the step", STEPS);
    this.node.append(this.picture, this.text);
    listenToKeys(this.node, {
      show: () => this.set(this.time ?? 0),
      hide: () => this.set(null),
      press: ({ key, shiftKey }) => !shiftKey && this.press(key),
      signal: view.listening.signal,
    });
  }

  layout({ width, laneLeft, timelinesOpen }) {
    this.node.hidden = !timelinesOpen;
    set(this.picture, { width, height: 20, viewBox: `0 0 ${width} 20` });
    this.axis.draw({ left: laneLeft, width: width - laneLeft, end_s: this.end_s, y: 0, unit: timeUnit(this.end_s) });
  }

  /** Seconds from the start; null hides it. */
  set(time) {
    const { view, end_s } = this;
    this.time = time;
    for (const row of view.rows) row.paintTime(time);
    this.text.textContent = time === null ? "" : formatSeconds(time);
    const left = view.laneLeft;
    if (time !== null) moveTo(this.text, left + (time / end_s) * (view.width - left), view.width);
    const told = view.rows.map((row) => `${row.entry.name}: ${row.textAtTime(time ?? 0)}`);
    const now = Math.round(((time ?? 0) / end_s) * STEPS) || 0;
    set(this.node, { "aria-valuenow": now, "aria-valuetext": `${formatSeconds(time ?? 0)}. ${told.join("; ")}` });
  }

  press(key) {
    const step = this.end_s / STEPS;
    const time = moved(key, this.time ?? -step, step, 0, this.end_s);
    if (key === "Escape") this.set(null);
    else if (time !== undefined) this.set(time);
    return key === "Escape" || time !== undefined;
  }
}
