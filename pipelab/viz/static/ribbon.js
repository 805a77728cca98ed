// The ribbon: the model from input to output, and its dividers. It can be zoomed from blocks to modules to ops.

import { formatCount, formatSeconds, prefixed } from "./numbers.js";
import { OWN_KEYS, button, el, keep, set, svg } from "./dom.js";
import { crossingTexts } from "./crossing.js";
import { Strip } from "./strip.js";
import { Terrain } from "./terrain.js";
import { listenToZoom, panned, zoomed, zoomedByKey, zoomedOn } from "./zoom.js";

const RIBBON = { top: 12, height: 42, bottom: 14 };
const GROUND = "Ribbon of the model, from input to output. Plus and minus zoom, arrows move, 0 shows all.";

export class Ribbon {
  constructor(view) {
    const { model, colours, ruler } = view;
    this.view = view;
    this.strip = new Strip({ model, colours, ruler, height: RIBBON.height });
    this.x = (position) => this.strip.x(position);
    this.ticks = svg("path", { class: "pl-ticks" });
    this.kept = svg("g", { class: "pl-kept" });
    this.overview = svg("g", { class: "pl-overview" });
    this.overview.append(svg("rect", { class: "pl-overview-all" }), svg("rect", { class: "pl-overview-part" }));
    this.picture = svg("svg", { class: "pl-ribbon-svg", "aria-hidden": "true" });
    this.picture.append(set(this.strip.node, { y: RIBBON.top }), this.ticks, this.overview, this.kept);
    this.ground = el("div", { class: "pl-ribbon-ground", tabindex: "0", role: "group", "aria-label": GROUND, ...OWN_KEYS });
    this.ground.append(this.picture);
    this.handles = el("div", { class: "pl-handles" });
    this.terrain = new Terrain(view);
    this.adder = el("div", { class: "pl-adder", "aria-hidden": "true", text: "+", hidden: true });
    this.tip = el("div", { class: "pl-tip", hidden: true });
    this.told = null; // the divider whose tip is shown
    this.tools = this.makeTools();
    view.hint.node.lastChild.before(this.tools);
    this.node = el("div", { class: "pl-ribbon" }, this.terrain.node, this.ground, this.handles, this.adder, this.tip);
    this.wire();
  }

  makeTools() {
    const tool = (text, name, change) => {
      const made = button(text, { "aria-label": name, title: name });
      made.addEventListener("click", () => this.view.setZoom(change(this.view.zoom)));
      return made;
    };
    return el(
      "span", { class: "pl-zoom" },
      tool("−", "Zoom out", (zoom) => zoomed(zoom, 1 / 1.5)),
      tool("+", "Zoom in", (zoom) => zoomed(zoom, 1.5)),
      tool("fit", "Show the whole model", () => [0, 1]),
    );
  }

  wire() {
    const { view } = this;
    const { signal } = view.listening;
    const on = (node, event, listener) => node.addEventListener(event, listener, { signal });
    listenToZoom(this.node, {
      signal,
      get: () => view.zoom,
      set: (zoom) => view.setZoom(zoom),
      rangeAt: (_, event) => this.strip.rangeAt(event),
    });
    on(this.node, "keydown", (event) => this.pressKey(event));
    on(this.handles, "focusin", (event) => this.reveal(view.cuts[[...this.handles.children].indexOf(event.target)]));
    on(this.ground, "pointermove", (event) => this.offer(event));
    on(this.ground, "pointerleave", () => this.offer(null));
    on(this.ground, "click", () => this.offered !== undefined && view.addCut(this.offered));
    on(this.node, "pointerenter", () => this.tools.classList.add("pl-near"));
    on(this.node, "pointerleave", () => this.tools.classList.remove("pl-near"));
  }

  /** Keys that zoom work on the ribbon and on its dividers; those that pan on its ground only. */
  pressKey(event) {
    const pans = event.key.startsWith("Arrow");
    if (event.ctrlKey || event.metaKey || event.altKey || (pans && event.target !== this.ground)) return;
    const { before } = this.strip;
    const divider = this.view.cuts[[...this.handles.children].indexOf(event.target)];
    const zoom = zoomedByKey(this.view.zoom, event.key, before[divider]);
    if (!zoom) return;
    event.preventDefault();
    event.stopPropagation();
    this.view.setZoom(zoom);
  }

  /** Bring a position into sight. */
  reveal(position) {
    const zoom = zoomedOn(this.view.zoom, this.strip.before[position] ?? 0);
    if (zoom !== this.view.zoom && !this.view.drag) this.view.setZoom(zoom);
  }

  /** A divider dragged past the edge takes the ribbon along. */
  follow(x) {
    const { view } = this;
    if (!(x < 0 && view.zoom[0] > 0) && !(x > this.width && view.zoom[1] < 1)) return;
    requestAnimationFrame(() => {
      if (!view.drag) return;
      view.setZoom(panned(view.zoom, x < 0 ? -0.03 : 0.03));
      view.dividers.requestPaint();
    });
  }

  /** Show a "+" at the nearest legal cut while the pointer is at the lower edge. */
  offer(event) {
    const { view } = this;
    const box = this.ground.getBoundingClientRect();
    const isAtEdge = event?.pointerType === "mouse" && !event.buttons && event.clientY - box.top >= RIBBON.top + RIBBON.height - 4;
    const wanted = isAtEdge ? this.strip.position(((event.clientX - box.left) / box.width) * this.width) : 0;
    const found = isAtEdge ? view.model.nearest(view.level, wanted, 0, view.model.numOps) : undefined;
    this.offered = found === undefined || view.cuts.includes(found) ? undefined : found;
    this.adder.hidden = this.offered === undefined;
    if (!this.adder.hidden) this.adder.style.transform = `translateX(${this.x(found).toFixed(1)}px)`;
  }

  /** The legal cut nearest to a place on the ribbon, between the neighbours of a divider. */
  positionAt(x, index) {
    const { dividers, level, model } = this.view;
    return model.nearest(level, this.strip.position(this.strip.clamp(x)), ...dividers.room(index));
  }

  // --- drawing

  /** Draw what a drag does not change: the pieces, their names, and a tick for each legal cut. */
  layout(width) {
    const { model, level, zoom } = this.view;
    const { top, height, bottom } = RIBBON;
    const tall = top + height + bottom;
    this.width = width;
    this.reach = matchMedia("(pointer: coarse)").matches ? 22 : 9;
    set(this.picture, { width, height: tall, viewBox: `0 0 ${width} ${tall}` });
    this.strip.layout(width, { zoom, sizeOf: this.sizeOf(), describe: (piece) => this.describe(piece) });
    const cuts = model.byLevel[level].map(this.x).filter((x) => x >= 0 && x <= width);
    set(this.ticks, { d: cuts.length <= width / 3 ? cuts.map((x) => `M${x.toFixed(1)} ${top + height}v4`).join("") : "" });
    this.layoutOverview(zoom);
    if (this.told !== null) this.paintTip();
  }

  layoutOverview([from, to]) {
    const isZoomed = to - from < 1;
    const y = RIBBON.top + RIBBON.height + 8;
    const [all, part] = this.overview.children;
    this.overview.style.display = isZoomed ? "" : "none";
    this.tools.classList.toggle("pl-zoomed", isZoomed);
    this.node.classList.toggle("pl-zoomed", isZoomed);
    set(all, { y, width: this.width, height: 3, rx: 1.5 });
    set(part, { y, x: from * this.width, width: Math.max(6, (to - from) * this.width), height: 3, rx: 1.5 });
  }

  /** What pieces are wide by: the same function until that changes. */
  sizeOf() {
    const { model, costs, widthBy } = this.view;
    const before = { flops: costs.state.flops_before, time: costs.state.time_before }[widthBy];
    if (!this.sized || this.sizedBy !== before) {
      this.sizedBy = before;
      this.sized = (start, stop) => (before ? before[stop] - before[start] : model.params.between(start, stop));
    }
    return this.sized;
  }

  /** The tooltip of a piece. */
  describe({ level, label, path, start, stop }) {
    const { model, costs } = this.view;
    const { flops_before: flops, time_before: times } = costs.state;
    const name = level === "op" ? `${label} in ${path}` : level === "module" && !path.endsWith(label) ? `${path}: ${label}` : path;
    const time = costs.timed ? ` and ${formatSeconds(times[stop] - times[start])}` : "";
    const work = `${prefixed(flops[stop] - flops[start]).join(" ")}FLOPs${time} per micro-batch`;
    return `${name}\n${formatCount(model.params.between(start, stop))} parameters · ${work}`;
  }

  paint() {
    const { cuts, drag } = this.view;
    const at = cuts.map(this.x);
    // For other panes a stage out of sight is at the edge.
    this.xs = [0, ...at.map((x) => this.strip.clamp(x)), this.width];
    this.strip.paint(cuts);
    const handles = keep(this.handles, cuts.length, (index) => this.view.dividers.make(index));
    for (let index = 0; index < cuts.length; index++) this.paintHandle(handles[index], index, at);
    this.paintKept();
    this.node.classList.toggle("pl-dragging", drag !== null);
  }

  paintHandle(handle, index, at) {
    const { model, level, cuts, pins, dividers } = this.view;
    const { xs, width } = this;
    const [above, below] = dividers.room(index);
    const isPinned = pins.has(cuts[index]);
    const key = [at[index], xs[index], xs[index + 2], cuts[index], above, below, level, isPinned, index].join(" ");
    if (handle.painted === key) return;
    handle.painted = key;
    const x = xs[index + 1];
    const left = Math.min(this.reach, Math.max(3, (x - xs[index]) / 2));
    const right = Math.min(this.reach, Math.max(3, (xs[index + 2] - x) / 2));
    handle.style.transform = `translateX(${x.toFixed(2)}px)`;
    handle.firstChild.style.left = `${-left}px`;
    handle.firstChild.style.width = `${left + right}px`;
    const [isLeft, isRight] = [at[index] < 0, at[index] > width];
    handle.classList.toggle("pl-left-of", isLeft);
    handle.classList.toggle("pl-right-of", isRight);
    // Of those out of sight on one side only the nearest has an arrow.
    handle.classList.toggle("pl-behind", (isLeft && at[index + 1] < 0) || (isRight && at[index - 1] > width));
    handle.classList.toggle("pl-pinned", isPinned);
    set(handle, {
      "data-split": index + 1,
      "aria-label": `Split ${index + 1} between stage ${index} and ${index + 1}`,
      "aria-valuemin": Math.min(cuts[index], model.step(level, cuts[index], -Infinity, above, below)),
      "aria-valuemax": Math.max(cuts[index], model.step(level, cuts[index], Infinity, above, below)),
      "aria-valuenow": cuts[index],
      "aria-valuetext": `${model.cut(cuts[index]).label}${isPinned ? ", pinned" : ""}`,
    });
  }

  /** The kept split's cuts where the split differs from it, and their name where there is room for it. */
  paintKept() {
    const { cuts, ruler, splits } = this.view;
    const { top, height } = RIBBON;
    const apart = (splits.kept ?? []).filter((cut) => !cuts.includes(cut)).map(this.x).filter((x) => x >= 0 && x <= this.width);
    const lines = keep(this.kept, apart.length ? 2 : 0, (index) => svg(index ? "text" : "path"));
    if (!apart.length) return;
    set(lines[0], { d: apart.map((x) => `M${x.toFixed(1)} 2V${top + height + 3}`).join("") });
    const wide = ruler.width("kept") + 4;
    const isFree = (x) => x + wide < this.width && this.xs.slice(1, -1).every((grip) => grip < x - 8 || grip > x + wide + 8);
    const place = apart.find(isFree);
    set(lines[1], { x: (place ?? 0) + 4, y: 10, text: place === undefined ? "" : "kept" });
  }

  // --- the divider in hand

  /** Say what crosses a cut, and while it is in hand how good its other places are; no index hides both. */
  showTip(index) {
    const { view } = this;
    this.told = index;
    this.tip.hidden = index === null;
    view.hint.node.classList.toggle("pl-covered", index !== null);
    if (this.isInHand) this.reveal(view.cuts[index]);
    if (view.drag) this.follow(view.drag.x);
    this.paintTip();
  }

  get isInHand() {
    return this.told !== null && (this.view.drag !== null || document.activeElement === this.handles.children[this.told]);
  }

  paintTip() {
    const { view, told } = this;
    this.terrain.show(this.isInHand ? told : null, this.x);
    if (told === null || told >= view.cuts.length) return;
    const texts = crossingTexts(view.model, view.costs, view.cuts[told]);
    const room = this.width - 20;
    // One line: a second would cover the verdict, which is read during a drag.
    const text = texts.find((text) => view.ruler.width(text, 12) <= room) ?? view.ruler.fit(texts.at(-1), room, 12);
    if (this.tip.textContent !== text) this.tip.textContent = text;
    const half = Math.ceil(view.ruler.width(text, 12)) / 2 + 9;
    const x = Math.min(Math.max(this.x(view.cuts[told]), half), this.width - half);
    this.tip.style.transform = `translate(${Math.round(x - half)}px, -100%)`;
  }
}
