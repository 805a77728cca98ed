// What a comparison tells of a plan, in words, and how that differs from the chosen plan.

import { fixed, formatBytes, formatCount, formatSeconds, percent, plural, wholeBytes } from "./numbers.js";

// Shares that differ by less are told as the same, as in contenders.py.
const SAME_SHARE = 0.005;

const sign = (value) => (value < 0 ? "−" : "+");

/** "+12 %", "−3.1 %", "× 4.2", "same"; empty where there is nothing to measure it by. */
export function change(value, beside) {
  if (!beside) return value ? "" : "same";
  const share = value / beside - 1;
  if (Math.abs(share) < SAME_SHARE) return "same";
  if (share >= 2) return `× ${fixed(value / beside, 1)}`;
  const size = 100 * Math.abs(share);
  return `${sign(share)}${fixed(size, size < 9.95 ? 1 : 0)}\u00a0%`;
}

/** The difference of two shares: "+24 points". */
export function points(value, beside) {
  // Of what is shown beside it: 44 % is 9 points more than 35 %.
  const text = fixed(Math.abs(Number(fixed(100 * value, 0)) - Number(fixed(100 * beside, 0))), 0);
  return text === "0" ? "same" : `${sign(value - beside)}${text} point${text === "1" ? "" : "s"}`;
}

const figure = (key, term, text, change) => ({ key, term, text, change });

const fullestOf = (entry) => entry.stages[entry.fullest];

/** A plan's figures: `key`, `term`, `text`, `change` from the chosen plan; those with a bar its `share`. */
export function figuresOf(entry, chosen, { objective, entries }) {
  const to = (differ, value) => (entry === chosen ? "" : differ(value(entry), value(chosen)));
  const params = (of) => of.stages[of.largest].params;
  const seconds = (of) => of.bottleneck.seconds;
  const memory = fullestOf(entry);
  const figures = [
    figure("params", `largest: stage ${entry.largest}`, formatCount(params(entry)), to(change, params)),
    figure("bottleneck", `bottleneck: ${entry.bottleneck.text}`, formatSeconds(seconds(entry)), to(change, seconds)),
    figure("step", "step", formatSeconds(entry.step_s), to(change, (of) => of.step_s)),
    figure("idle", "idle", percent(entry.idle), to(points, (of) => of.idle)),
    {
      ...figure("memory", memoryTerm(entry), memoryText(memory), to(change, (of) => fullestOf(of).memory)),
      share: Math.min(1, memory.memory / memory.capacity),
      isOver: entry.misfits.length > 0,
    },
    figure("sends", "sends", formatBytes(entry.sent_bytes), to(change, (of) => of.sent_bytes)),
    aboveFigure(entry, entries, objective),
  ];
  if (entries.some(({ measured }) => measured)) figures.splice(3, 0, measuredFigure(entry, chosen));
  return figures.filter(({ key }) => key !== "params" || objective === "params");
}

function memoryTerm({ fullest, misfits }) {
  if (misfits.length > 1) return `${plural(misfits.length, "stage")} too full`;
  return misfits.length ? `too full: stage ${fullest}` : `fullest: stage ${fullest}`;
}

/** "1.28 of 16.0 GB": a unit that both have is said once. */
function memoryText({ memory, capacity }) {
  const [used, held] = [formatBytes(memory), wholeBytes(capacity)];
  const [number, unit] = used.split(" ");
  return held.endsWith(` ${unit}`) ? `${number} of ${held}` : `${used} of ${held}`;
}

/** How far above the optimum, with a bar on the scale of all plans. */
function aboveFigure({ above, above_text }, entries, objective) {
  const most = Math.max(...entries.map((entry) => entry.above));
  const term = objective === "time" ? "slowest stage" : "largest stage";
  const share = most > 0 ? Math.max(0, above / most) : 0;
  return { ...figure("above", term, `${above_text} optimal`, ""), share };
}

/** The step that was measured; its difference from the chosen one's, where both were. */
function measuredFigure(entry, chosen) {
  const both = entry !== chosen && entry.measured && chosen.measured;
  const differs = both ? change(entry.measured.step_s, chosen.measured.step_s) : "";
  return figure("measured", "measured", entry.measured_text || "–", differs);
}

/** What is told of a stage, from many words to few. */
export function stageTexts(index, { labels, params, work_s, memory }) {
  const sizes = [`${formatCount(params)} parameters`, formatSeconds(work_s), formatBytes(memory)];
  return [
    `stage ${index}: ${labels} · ${sizes.join(" · ")}`,
    `stage ${index} · ${[formatCount(params), ...sizes.slice(1)].join(" · ")}`,
    `stage ${index} · ${formatCount(params)} · ${formatSeconds(work_s)}`,
    `stage ${index}`,
  ];
}

/** What stands on each stage of a ribbon, from many words to few: one of these forms for most stages of a plan. */
export function headForms({ stages, bottleneck, largest }, objective) {
  const size = ({ params, work_s }) => (objective === "time" ? formatSeconds(work_s) : formatCount(params));
  const most = objective === "time" ? bottleneck.stage : largest;
  const mark = (index) => (index === most ? "▲ " : "");
  return [
    stages.map((stage, index) => `${mark(index)}stage ${index} · ${size(stage)}`),
    stages.map((stage, index) => `${mark(index)}${index} · ${size(stage)}`),
    stages.map((stage, index) => `${mark(index)}${index}`),
    stages.map((_, index) => `${index}`),
  ];
}

/** The stage that runs an op, between these cuts. */
export const stageAt = (cuts, op) => cuts.filter((cut) => cut <= op).length;

/** How many ranks compute at a time. */
export const busyAt = ({ rows }, time) =>
  rows.filter((events) => events.some(([kind, , , from, to]) => kind.length === 1 && from <= time && time < to)).length;
