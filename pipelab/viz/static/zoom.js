// The part of a ribbon that is in sight: [from, to], shares of the whole width. Wheel, fingers and keys change it.

/** The narrowest part that can be shown, as a share of the whole. */
const LEAST = 1 / 4000;

/** The part of this span that begins at `from`, moved inside the whole. */
function inside(from, span) {
  const start = Math.min(Math.max(from, 0), 1 - span);
  return span > 0.999 ? [0, 1] : [start, start + span];
}

/** The part `factor` times as large as life; the place `at`, a share of the whole, stays where it is. */
export function zoomed([from, to], factor, at = (from + to) / 2) {
  const span = Math.min(Math.max((to - from) / factor, LEAST), 1);
  return inside(at - ((at - from) / (to - from)) * span, span);
}

/** The part moved by a share of itself. */
export const panned = ([from, to], by) => inside(from + by * (to - from), to - from);

/** The part that shows this range with a little around it; all, if it shows that already. */
export function zoomedTo(zoom, [start, stop]) {
  const span = Math.min(Math.max((stop - start) * 1.1, LEAST), 1);
  const wanted = inside((start + stop - span) / 2, span);
  return Math.abs(wanted[0] - zoom[0]) + Math.abs(wanted[1] - zoom[1]) < span / 100 ? [0, 1] : wanted;
}

/** The part moved so that this place is in it; as it is if it is. */
export function zoomedOn(zoom, at) {
  const span = zoom[1] - zoom[0];
  return at >= zoom[0] && at <= zoom[1] ? zoom : inside(at - span / 2, span);
}

/** What a key makes of it, undefined for other keys; `at` stays where it is, the middle if nothing is named. */
export function zoomedByKey(zoom, key, at) {
  const made = {
    "+": () => zoomed(zoom, 1.5, at),
    "=": () => zoomed(zoom, 1.5, at),
    "-": () => zoomed(zoom, 1 / 1.5, at),
    0: () => [0, 1],
    ArrowLeft: () => panned(zoom, -0.15),
    ArrowRight: () => panned(zoom, 0.15),
  };
  return made[key]?.();
}

/**
 * Let a node be zoomed: ctrl or meta + wheel and pinch at the pointer, shift + wheel, sideways wheel and dragging its
 * ground pan, a double click zooms to `rangeAt(share, event)`. A plain wheel scrolls the page.
 */
export function listenToZoom(node, { get, set, signal, rangeAt }) {
  const on = (event, listener, options = {}) => node.addEventListener(event, listener, { signal, ...options });
  const isGround = (event) => !event.target.closest("[role=slider], button");
  const place = (clientX, [from, to]) => {
    const { left, width } = node.getBoundingClientRect();
    return from + ((to - from) * (clientX - left)) / width;
  };
  const later = oncePerFrame(get, set, signal);
  const fingers = new Fingers(node, later, place);

  on("wheel", (event) => {
    const zoom = later.get();
    const unit = event.deltaMode ? 16 : 1;
    const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      const notch = Math.min(Math.max(event.deltaY * unit, -30), 30);
      later.set(zoomed(zoom, 1.01 ** -notch, place(event.clientX, zoom)));
    } else if (zoom[1] - zoom[0] < 1 && Math.abs(sideways) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
      later.set(panned(zoom, (sideways * unit) / node.clientWidth));
    } else return;
    event.preventDefault();
  }, { passive: false });
  on("pointerdown", (event) => isGround(event) && event.button === 0 && fingers.add(event));
  on("pointermove", (event) => fingers.move(event));
  for (const event of ["pointerup", "pointercancel", "lostpointercapture"]) on(event, (at) => fingers.remove(at));
  on("dblclick", (event) => {
    const zoom = later.get();
    const range = isGround(event) && rangeAt(place(event.clientX, zoom), event);
    if (range) later.set(zoomedTo(zoom, range));
  });
}

/** Of several changes within a frame only the last is drawn. */
function oncePerFrame(get, set, signal) {
  let wanted;
  let frame;
  signal.addEventListener("abort", () => cancelAnimationFrame(frame));
  return {
    get: () => wanted ?? get(),
    set: (zoom) => {
      wanted = zoom;
      frame ??= requestAnimationFrame(() => {
        const zoom = wanted;
        wanted = frame = undefined;
        set(zoom);
      });
    },
  };
}

/** Pointers on the ground: one pans, two pinch. */
class Fingers {
  constructor(node, zoom, place) {
    Object.assign(this, { node, zoom, place, at: new Map(), moved: 0 });
  }

  add(event) {
    this.at.set(event.pointerId, event.clientX);
    this.moved = 0;
  }

  move({ pointerId, clientX }) {
    const before = this.at.get(pointerId);
    if (before === undefined || this.at.size > 2) return;
    const zoom = this.zoom.get();
    this.moved += Math.abs(clientX - before);
    // A click that trembles is no drag, and stays a click.
    if (this.moved > 3 && !this.node.hasPointerCapture(pointerId)) this.node.setPointerCapture(pointerId);
    if (this.at.size === 1) {
      this.zoom.set(panned(zoom, (before - clientX) / this.node.getBoundingClientRect().width));
    } else {
      const [other] = [...this.at].find(([id]) => id !== pointerId).slice(1);
      const factor = Math.max(Math.abs(clientX - other), 10) / Math.max(Math.abs(before - other), 10);
      this.zoom.set(zoomed(zoom, factor, this.place(other, zoom)));
    }
    this.at.set(pointerId, clientX);
  }

  remove({ pointerId }) {
    this.at.delete(pointerId);
  }
}
