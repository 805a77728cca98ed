// What the keys do anywhere in the explorer, and the list of everything behind "?".

const WIDTHS = ["params", "flops", "time"];

/** Letters that work wherever the focus is, except in fields where one types. */
export const KEYS = {
  w: (view) => view.setWidthBy(nextWidth(view)),
  g: (view) => view.toggleGraph(),
  m: (view) => view.setStep(view.stepped === null ? 0 : (view.stepped + 1) % view.numMicrobatches),
  k: (view) => view.splits.keep(),
  a: (view) => view.splits.addWhereItHelps(),
  o: (view) => view.splits.use("optimal", view.cuts.length + 1),
  r: (view) => !view.controls.run.disabled && view.running.press(),
  "?": (view) => view.help.toggle(),
};

const nextWidth = (view) => {
  const widths = WIDTHS.filter((by) => view.widths.includes(by));
  return widths[(widths.indexOf(view.widthBy) + 1) % widths.length];
};

/** Do what a key stands for; true if it stands for something. */
export function pressed(view, event) {
  const { key, ctrlKey, metaKey, shiftKey, altKey, target } = event;
  if (event.defaultPrevented || altKey || view.drag || target.closest("input, select, textarea, pre")) return false;
  const letter = key.toLowerCase();
  if (ctrlKey || metaKey) {
    const redo = letter === "y" || (letter === "z" && shiftKey);
    if (!redo && letter !== "z") return false;
    if (redo) view.splits.redo();
    else view.splits.undo();
    return true;
  }
  if (key === "Escape") return view.leave();
  if (!(letter in KEYS)) return false;
  if (!event.repeat) KEYS[letter](view); // a key held down runs, and does not run and cancel in turn
  return true;
}

const SUPPRESS = "data-lm-suppress-shortcuts";

/** JupyterLab's own shortcuts with Ctrl, such as saving, also work here: all but undo and redo. */
export function letThrough(root, { target, ctrlKey, metaKey, key }) {
  const isOurs = ["z", "y", "control", "meta", "shift"].includes(key.toLowerCase()) || target.closest?.("input, textarea, pre");
  if (!(ctrlKey || metaKey) || isOurs || !root.contains(target)) return;
  const silent = [target, root].filter((node) => node.hasAttribute(SUPPRESS));
  for (const node of silent) node.removeAttribute(SUPPRESS);
  setTimeout(() => silent.forEach((node) => node.setAttribute(SUPPRESS, "true")));
}

export const HELP = [
  ["Keys", "work after a click on the explorer, or a Tab into it"],
  ["Drag ◆", "move a split point; every number follows. Double-click it, or P: pin it, and Optimal moves the others only"],
  ["← →", "on a divider: one place. Shift: a block. Page Up, Page Down: five. Home, End: as far as it goes"],
  ["Delete", "on a divider: take it away. A: add one where it helps most"],
  ["Ctrl + Z, Ctrl + Y", "undo, redo"],
  ["O", "optimal, around the pins: the slowest stage is as fast as can be, and that is proven; without times, the largest as small"],
  ["K", "keep this split, drawn dashed, to compare the next ones with"],
  ["W", "ribbon by parameters, FLOPs or time"],
  ["Ctrl + wheel, + − 0", "zoom the ribbon into modules and ops; double-click a piece"],
  ["G", "graph: the blocks, modules and ops of each stage, and what flows between them"],
  ["M", "step through the timeline, one micro-batch at a time"],
  ["R", "run: one process per stage; the measured timeline shows who waits for whom"],
  ["Esc", "give up a drag, leave what is open"],
  ["Boxes", "one per stage; hatched: more than its device holds. On an arrow: what crosses, per micro-batch"],
  ["Curve", "under the divider in hand: the bottleneck with it at each place; low is good"],
  ["Uniform", "the same number of blocks in each stage"],
  ["Equal size", "PiPPy's greedy policy: a stage is full at total ÷ stages, the last one takes the rest"],
  ["Threshold", "PiPPy's other one: at most so many parameters per stage, as many stages as it takes"],
];
