// Elements of the page, and how wide a text is in its font.

const SVG = "http://www.w3.org/2000/svg";

export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
  return node;
}

export function el(tag, attributes = {}, ...children) {
  const node = set(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

export const svg = (tag, attributes = {}) => set(document.createElementNS(SVG, tag), attributes);

/** Make `parent` hold exactly `count` children, reusing those it has: focus and hover survive. */
export function keep(parent, count, make) {
  while (parent.childElementCount > count) parent.lastElementChild.remove();
  while (parent.childElementCount < count) parent.append(make(parent.childElementCount));
  return parent.children;
}

// JupyterLab's notebook shortcuts ("d d" deletes the cell) reach any focusable element without this attribute.
export const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

export const button = (text, attributes = {}) => el("button", { type: "button", text, ...OWN_KEYS, ...attributes });

const MOST_WIDTHS = 4096;

/** Measures text in the widget's own font. */
export class Ruler {
  constructor() {
    this.context = document.createElement("canvas").getContext("2d");
  }

  use(root) {
    const { fontFamily } = getComputedStyle(root);
    const family = fontFamily || "sans-serif";
    if (family === this.family) return;
    this.family = family;
    this.widths = new Map();
  }

  width(text, size = 11, weight = 400) {
    const key = `${size} ${weight} ${text}`;
    if (!this.widths.has(key)) {
      if (this.widths.size === MOST_WIDTHS) this.widths.clear();
      this.context.font = `${weight} ${size}px ${this.family}`;
      this.widths.set(key, this.context.measureText(text).width);
    }
    return this.widths.get(key);
  }

  /** The text, or as much of it as fits. */
  fit(text, width, size = 11) {
    if (this.width(text, size) <= width) return text;
    let length = text.length;
    this.context.font = `400 ${size}px ${this.family}`;
    while (length > 1 && this.context.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
    return length > 1 ? `${text.slice(0, length).trimEnd()}…` : "";
  }
}
