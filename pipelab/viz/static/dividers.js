// Dividers under the hand: dragged, moved by keys, pinned. Where they may go is the ribbon's to say.

import { OWN_KEYS, el } from "./dom.js";

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity };

export class Dividers {
  constructor(view) {
    this.view = view;
  }

  make(index) {
    const handle = el("div", { class: "pl-handle", role: "slider", tabindex: "0", "aria-orientation": "horizontal", ...OWN_KEYS });
    handle.append(el("div", { class: "pl-hit" }), el("div", { class: "pl-line" }), el("div", { class: "pl-grip" }));
    const { view } = this;
    const on = (event, listener) => handle.addEventListener(event, listener, { signal: view.listening.signal });
    on("pointerdown", (event) => this.take(event, handle, index));
    on("pointermove", (event) => this.move(event));
    const letGo = (event, commit) => event.pointerId === view.drag?.pointer && this.release(commit);
    on("pointerup", (event) => letGo(event, true));
    on("pointercancel", (event) => letGo(event, false));
    on("lostpointercapture", (event) => letGo(event, true));
    on("dblclick", () => view.togglePin(index));
    on("keydown", (event) => this.press(event, index));
    on("focus", () => view.show("cut", index));
    on("blur", () => view.show(null));
    on("pointerenter", () => !view.drag && view.show("cut", index));
    // The tip of a focused divider stays for the keyboard, and goes with the mouse.
    on("pointerleave", () => !view.drag && !(view.byKeys && document.activeElement === handle) && view.show(null));
    return handle;
  }

  /** The positions between which a divider may move. */
  room(index) {
    const { cuts, model } = this.view;
    return [index ? cuts[index - 1] : 0, index < cuts.length - 1 ? cuts[index + 1] : model.numOps];
  }

  take(event, handle, index) {
    const { view } = this;
    if (event.button !== 0 || view.drag) return; // one divider at a time, whatever a second finger does
    event.preventDefault();
    handle.focus();
    if (view.pins.has(view.cuts[index])) return;
    handle.setPointerCapture(event.pointerId);
    const box = view.ribbon.node.getBoundingClientRect();
    const scale = box.width / view.width || 1;
    const grab = (event.clientX - box.left) / scale - view.ribbon.x(view.cuts[index]);
    view.drag = { index, handle, pointer: event.pointerId, before: [...view.cuts], left: box.left + grab * scale, scale };
    this.requestPaint();
  }

  move(event) {
    const { drag } = this.view;
    if (drag?.pointer !== event.pointerId) return;
    drag.x = (event.clientX - drag.left) / drag.scale;
    this.requestPaint();
  }

  requestPaint() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      const { view } = this;
      if (!view.drag) return;
      const { index, x } = view.drag;
      const found = x === undefined ? undefined : view.ribbon.positionAt(x, index);
      if (found !== undefined && found !== view.cuts[index]) view.splits.moveLive(view.cuts.with(index, found));
      view.ribbon.node.classList.add("pl-dragging");
      view.show("cut", index);
    });
  }

  release(commit) {
    const { view } = this;
    if (!view.drag) return;
    const { before, handle, pointer } = view.drag;
    view.drag = null;
    this.stop();
    if (handle.hasPointerCapture(pointer)) handle.releasePointerCapture(pointer);
    view.commit(commit ? view.cuts : before);
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
  }

  press(event, index) {
    const { view } = this;
    const done = () => {
      event.preventDefault();
      event.stopPropagation();
    };
    if (event.key === "Escape" && view.drag) {
      done();
      this.release(false);
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey || view.drag) return;
    if (event.key === "Delete" || event.key === "Backspace") {
      done();
      view.removeCut(index);
      // Go on by keyboard from the divider that is nearest, else from the explorer.
      (view.ribbon.handles.children[Math.min(index, view.cuts.length - 1)] ?? view.root).focus();
    } else if (event.key.toLowerCase() === "p") {
      done();
      view.togglePin(index);
    } else if (STEPS[event.key] !== undefined) {
      done();
      this.step(event, index);
    }
  }

  step(event, index) {
    const { view } = this;
    if (view.pins.has(view.cuts[index])) return;
    const level = event.shiftKey && view.model.byLevel.block.length ? "block" : view.level;
    const found = view.model.step(level, view.cuts[index], STEPS[event.key], ...this.room(index));
    if (found === view.cuts[index]) return;
    view.splits.changed();
    view.commit(view.cuts.with(index, found));
    view.show("cut", index);
  }
}
