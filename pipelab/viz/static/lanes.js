// The graph's layout: pieces of the model as nodes in op order, lines for what flows between them. Pure geometry.

// A value that more nodes read is told on them: a line to each would hide the others.
const MOST_READERS = 8;
// What is needed only much later leaves its lane to others meanwhile.
const BRANCH = 16;
const MAX_LANES = 5;

/**
 * What flows between pieces: `edges` {from, to, values} between two of them, `reads` per piece the values that come from
 * elsewhere (inputs, broadcasts, far away), and which pieces the flow `enters` and `leaves`.
 */
export function flowBetween(flow, pieces) {
  const count = pieces.length;
  const [first, stop] = [pieces[0].start, pieces.at(-1).stop];
  const pieceOf = new Int32Array(stop - first);
  for (const [index, piece] of pieces.entries()) pieceOf.fill(index, piece.start - first, piece.stop - first);
  const found = { edges: [], reads: pieces.map(() => []), enters: new Set(), leaves: new Set() };
  const edges = new Map();
  const sort = (value, from) => {
    const { within, outside } = readersOf(flow, value, from, { first, stop, pieceOf });
    const many = within.length + outside > MOST_READERS;
    if (outside && from >= 0 && flow.readers(value).at(-1) >= stop && !many) found.leaves.add(from);
    for (const to of within) {
      if (from < 0 && value >= 0 && !many && !to) found.enters.add(to);
      else if (many || from < 0) found.reads[to].push(value);
      else {
        const key = from * count + to;
        if (!edges.has(key)) edges.set(key, { from, to, values: [] });
        edges.get(key).values.push(value);
      }
    }
  };
  for (const value of sourcesOutside(flow, first, stop)) sort(value, -1);
  for (let op = first; op < stop; op++) sort(op, pieceOf[op - first]);
  found.edges = [...edges.values()].sort((a, b) => a.to - b.to || a.from - b.from);
  return found;
}

/** The pieces that read a value, but for the one that makes it, and how many ops outside the pieces do. */
function readersOf(flow, value, from, { first, stop, pieceOf }) {
  const within = [];
  let outside = 0;
  for (const op of flow.readers(value)) {
    if (op < first || op >= stop) outside += 1;
    else if (pieceOf[op - first] !== from && within.at(-1) !== pieceOf[op - first]) within.push(pieceOf[op - first]);
  }
  return { within, outside };
}

/** The values made before `first` that ops up to `stop` read. */
function sourcesOutside(flow, first, stop) {
  const found = new Set();
  for (let op = first; op < stop; op++) {
    for (const value of flow.sources(op)) if (value < first) found.add(value);
  }
  return found;
}

/** The lane of each node: a chain stays in its lane, branches of one value (q, k, v) lie side by side. */
export function lanesOf(count, edges) {
  const sources = Array.from({ length: count }, () => new Set());
  const last = new Int32Array(count).fill(-1);
  for (const { from, to } of edges) {
    sources[to].add(from);
    last[from] = Math.max(last[from], to);
  }
  const tails = [];
  return sources.map((read, node) => {
    const free = (tail) => last[tail] < node || last[tail] - tail > BRANCH;
    let lane = tails.findIndex((tail) => read.has(tail));
    if (lane < 0) lane = tails.findIndex(free);
    if (lane < 0) lane = Math.min(tails.length, MAX_LANES - 1);
    tails[lane] = node;
    return lane;
  });
}

/** How each edge is drawn: "straight" in one lane, "bent" along the deeper lane, or an "arc" below all. */
export function shapesOf(edges, lanes) {
  const busy = (lane, from, to) => {
    for (let node = from + 1; node < to; node++) if (lanes[node] === lane) return true;
    return false;
  };
  return edges.map(({ from, to }) => {
    if (to - from > 4 * BRANCH || busy(Math.max(lanes[from], lanes[to]), from, to)) return "arc";
    return lanes[from] === lanes[to] ? "straight" : "bent";
  });
}

/** An edge as a path, between boxes {left, right, y} that are `height` high; arcs hang from `base`, `room` deep at most. */
export function edgePath(shape, from, to, { height, base, room }) {
  const [y, end] = [from.y + height / 2, to.y + height / 2];
  if (shape === "straight") return `M${from.right} ${y}H${to.left}`;
  if (shape === "bent") {
    const bend = Math.min(14, Math.max(4, (to.left - from.right) / 2));
    const down = end > y;
    const [a, b] = down ? [from.right, from.right + bend] : [to.left - bend, to.left];
    const curve = `C${(a + b) / 2} ${y} ${(a + b) / 2} ${end} ${b} ${end}`;
    return down ? `M${a} ${y}${curve}H${to.left}` : `M${from.right} ${y}H${a}${curve}`;
  }
  const [x, back] = [(from.left + from.right) / 2, (to.left + to.right) / 2];
  const depth = base + 1.33 * Math.min(room, 8 + Math.sqrt(back - x));
  return `M${x} ${from.y + height}C${x} ${depth} ${back} ${depth} ${back} ${to.y + height}`;
}
