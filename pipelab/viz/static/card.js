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

  /** Tell of a stage or a cut while the mouse is on this element; a click keeps it open. */
  tellUnder(node, kind, index) {
    const on = (event, listener) => node.addEventListener(event, listener, { signal: this.view.listening.signal });
    on("pointerenter", () => !this.view.drag && this.view.show(kind, index));
    on("pointerleave", () => !this.view.drag && document.activeElement !== node && this.view.show(null));
    on("click", () => this.keep(kind, index));
  }

  /** The same for an element that takes the focus; Enter keeps it open. */
  tellOf(node, kind, index) {
    const { view } = this;
    this.tellUnder(node, kind, index);
    const on = (event, listener) => node.addEventListener(event, listener, { signal: view.listening.signal });
    on("focus", () => {
      view.show(kind, index);
      if (view.byKeys) this.tell(view.shown);
    });
    on("blur", () => view.show(null));
    on("keydown", (event) => {
      const { key } = event;
      if (!(key === "Enter" || (key === "Escape" && this.told))) return;
      event.preventDefault();
      event.stopPropagation();
      if (key === "Enter") this.keep(kind, index);
      else this.close();
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
    if (this.kept || this.view.drag) return;
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

  paint() {
    const { told, view, node } = this;
    if (!told && node.hidden) return;
    if (told && (view.drag || told.index >= view.stages.length - (told.kind === "cut" ? 1 : 0))) {
      this.close();
      return;
    }
    for (const [index, box] of [...view.boxes.boxes.children].entries()) {
      set(box, { "aria-describedby": told?.kind === "stage" && told.index === index && node.id });
    }
    node.hidden = !told;
    view.root.style.minHeight = "";
    node.classList.toggle("pl-kept", this.kept);
    if (!told) return;
    this.write(STORIES[told.kind](view, told.index));
    this.place(told);
  }

  write({ title, facts, tables }) {
    const list = el("dl", {}, ...facts.flatMap(([term, text]) => [el("dt", { text: term }), el("dd", { text })]));
    const groups = tables.map(([heading, rows]) => {
      const head = el("tr", {}, el("th", { text: heading, colspan: "4", scope: "rowgroup" }));
      return el("tbody", {}, head, ...rows.map((cells) => el("tr", {}, ...cells.map((text) => el("td", { text })))));
    });
    this.node.replaceChildren(el("strong", { text: title }), ...(facts.length ? [list] : []), el("table", {}, ...groups));
  }

  /** Under the box, or between the two boxes of a cut, within the widget. */
  place({ kind, index }) {
    const { boxes, width } = this.view;
    const { grid, placed, boxHeight } = boxes;
    const [x, y] = placed[kind === "cut" ? index + 1 : index];
    const middle = kind === "cut" ? x - grid.gap / 2 : x + grid.box / 2;
    const left = Math.min(Math.max(middle - this.node.offsetWidth / 2, 0), width - this.node.offsetWidth);
    this.node.style.transform = `translate(${Math.round(left)}px, ${y + boxHeight + 6}px)`;
    this.makeRoom();
  }

  /** A notebook cuts off what hangs out of a widget: it grows as long as a card needs it. */
  makeRoom() {
    const { root } = this.view;
    const { bottom, height } = root.getBoundingClientRect();
    const scale = height / root.offsetHeight;
    const over = (this.node.getBoundingClientRect().bottom - bottom) / scale + 12;
    if (over > 0) root.style.minHeight = `${Math.ceil(root.offsetHeight + over)}px`;
  }
}
