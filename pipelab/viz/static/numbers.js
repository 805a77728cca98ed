// Numbers as text, as pipelab/units.py writes them, and the ticks of an axis.

/** A number with this many decimals, exact ties to even, as Python writes it (toFixed rounds them up). */
export function fixed(value, digits) {
  const doubled = value * 2 ** (digits + 1);
  if (Number.isInteger(doubled) && doubled % 2 !== 0) {
    const floor = (doubled * 5 ** digits - 1) / 2;
    return ((floor % 2 === 0 ? floor : floor + 1) / 10 ** digits).toFixed(digits);
  }
  return value.toFixed(digits);
}

function threeDigits(value) {
  const size = Math.abs(value);
  return fixed(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

export function prefixed(value) {
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= factor * 0.9995) return [threeDigits(value / factor), prefix];
  }
  return [fixed(value, 0), ""];
}

export const formatCount = (count) => prefixed(count).join(" ").trimEnd();

export const formatBytes = (bytes) => `${prefixed(bytes).join(" ")}B`;

/** What a device has, "80 GB". */
export const wholeBytes = (bytes) => formatBytes(bytes).replace(/\.0+ /, " ");

export function formatSeconds(seconds) {
  for (const [factor, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (Math.abs(seconds) >= factor * 0.9995 || unit === "µs") return `${threeDigits(seconds / factor)} ${unit}`;
  }
}

/** "92 of 80 GB", in the unit of what there is, and rounded apart: the need never seems to fit. */
export function formatNeed(bytes, capacity) {
  const [factor, unit] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([factor]) => capacity >= factor) ?? [1, "B"];
  const digits = capacity / factor < 10 && factor > 1 ? 1 : 0;
  const rounded = (round, value) => (round((value / factor) * 10 ** digits) / 10 ** digits).toFixed(digits);
  return `${rounded(Math.ceil, bytes)} of ${rounded(Math.floor, capacity)} ${unit}`;
}

/** No line breaks before the sign. */
export const percent = (share) => `${fixed(share * 100, 0)}\u00a0%`;

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;

/** Index of the first element that is not less than `value` in an ascending list. */
export function firstAtLeast(sorted, value) {
  let low = 0;
  for (let high = sorted.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function niceStep(least) {
  if (!(least > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.9999);
}
