// The card under a stage's box or a cut: everything there is to tell of it, while the mouse or the focus is there.

import { el, set } from "./dom.js";
import { cutStory, stageStory } from "./story.js";

const STORIES = { stage: stageStory, cut: cutStory };
const DELAY_MS = { stage: 350, cut: 700, next: 80, leave: 150 };

export class Card {
  constructor(view) {
    this.view = view;
    this.told = null;
    this.kept = false;
    this.node = el("div", { class: "pl-card", id: `${view.id}-card`, role: "tooltip", hidden: true });
    const { signal } = view.listening;
    this.node.addEventListener("pointerenter", () => clearTimeout(this.timer), { signal });
    this.node.addEventListener("pointerleave", () => this.view.show(null), { signal });
    const outside = ({ target }) => this.kept && !this.node.contains(target) && !target.closest?.(".pl-box") && this.close();
    document.addEventListener("pointerdown", outside, { signal });
  }

  /** Tell of a stage or a cut while the mouse or the focus is on this element; a click or Enter keeps it open. */
  tellOf(node, kind, index) {
    const { view } = this;
    const on = (event, listener) => node.addEventListener(event, listener, { signal: view.listening.signal });
    on("pointerenter", () => view.show(kind, index));
    on("pointerleave", () => document.activeElement !== node && view.show(null));
    on("focus", () => {
      view.show(kind, index);
      if (view.byKeys) this.tell(view.shown);
    });
    on("blur", () => view.show(null));
    on("click", () => this.keep(kind, index));
    on("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      this.keep(kind, index);
    });
  }

  keep(kind, index) {
    const same = this.kept && this.told?.kind === kind && this.told.index === index;
    this.kept = !same;
    this.tell(same ? null : { kind, index });
  }

  /** Follow what is shown, a moment later: the mouse may only pass by. */
  follow() {
    const { shown } = this.view;
    clearTimeout(this.timer);
    if (this.kept) return;
    const wait = !shown ? DELAY_MS.leave : this.told ? DELAY_MS.next : (DELAY_MS[shown.kind] ?? 0);
    this.timer = setTimeout(() => this.tell(this.view.shown), wait);
  }

  /** Close it; false if it was closed. */
  close() {
    const open = this.told !== null;
    this.kept = false;
    this.tell(null);
    return open;
  }

  tell(shown) {
    clearTimeout(this.timer);
    this.told = shown && shown.kind in STORIES && !this.view.drag ? shown : null;
    this.paint();
  }

  layout() {}

  paint() {
    const { told, view, node } = this;
    if (told && (view.drag || told.index >= view.stages.length - (told.kind === "cut" ? 1 : 0))) {
      this.close();
      return;
    }
    for (const [index, box] of [...view.boxes.boxes.children].entries()) {
      set(box, { "aria-describedby": told?.kind === "stage" && told.index === index && node.id });
    }
    node.hidden = !told;
    node.classList.toggle("pl-kept", this.kept);
    if (!told) return;
    this.write(STORIES[told.kind](view, told.index));
    this.place(told);
  }

  write({ title, facts, tables }) {
    const list = el("dl", {}, ...facts.flatMap(([term, text]) => [el("dt", { text: term }), el("dd", { text })]));
    const drawn = tables.map(([caption, rows]) => {
      const lines = rows.map((cells) => el("tr", {}, ...cells.map((text) => el("td", { text }))));
      return el("table", {}, el("caption", { text: caption }), el("tbody", {}, ...lines));
    });
    this.node.replaceChildren(el("strong", { text: title }), ...(facts.length ? [list] : []), ...drawn);
  }

  /** Under the box, or between the two boxes of a cut, within the widget. */
  place({ kind, index }) {
    const { boxes, width } = this.view;
    const { grid, placed, boxHeight } = boxes;
    const [x, y] = placed[kind === "cut" ? index + 1 : index];
    const middle = kind === "cut" ? x - grid.gap / 2 : x + grid.box / 2;
    const left = Math.min(Math.max(middle - this.node.offsetWidth / 2, 0), width - this.node.offsetWidth);
    this.node.style.transform = `translate(${Math.round(left)}px, ${y + boxHeight + 6}px)`;
  }
}
