// What the tip of a divider says: where it is, what crosses it, and how much that is.

import { fixed, formatBytes, plural } from "./numbers.js";
import { tensorText } from "./model.js";

/** What a micro-batch sends across a cut, from many words to few. */
export function crossingTexts(model, costs, position) {
  const { label, alive } = model.cut(position);
  const bytes = costs.cutBytes(position);
  const tensors = alive.slice(0, 3).map((value) => model.tensor(value, costs.rows));
  const more = alive.length > 3 ? [`${alive.length - 3} more`] : [];
  const said = (write) => (tensors.length ? `${[...tensors.map(write), ...more].join(" + ")}, ` : "");
  const whats = [said(tensorText), said(({ name }) => name), `${plural(alive.length, "value")}, `, ""];
  const size = `${formatBytes(bytes)} per micro-batch`;
  const beside = compared(model, costs, position, bytes);
  const texts = whats.map((what) => `${label}: ${what}${size}`);
  return [...texts.map((text) => text + beside), texts.at(-1)];
}

/** Inside a block, how its bytes compare with those before the block. */
function compared(model, costs, position, bytes) {
  const { label, start } = model.blockAt(position);
  const before = start < position && model.cutIndex.has(start) ? costs.cutBytes(start) : 0;
  if (!before) return "";
  const ratio = bytes / before;
  const times = fixed(ratio, ratio < 9.95 ? 1 : 0).replace(/\.0$/, "");
  return times === "1" ? `, as many as before ${label}` : `, ${times}× the bytes before ${label}`;
}
