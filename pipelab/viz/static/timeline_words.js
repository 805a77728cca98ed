// What the timelines say in words: heads, the difference between predicted and measured, one micro-batch's way.

import { formatSeconds, percent, plural } from "./numbers.js";
import { inUnit, withUnit } from "./axis.js";
import { DOES, isWork } from "./track.js";
import { SCHEDULE_NAMES } from "./schedules.js";

export function predictedWords({ rows, unit, makespan_s, idle }, { numMicrobatches, stages, training, schedule }) {
  const work = training ? `, ${SCHEDULE_NAMES[schedule].text} training` : "";
  const numStages = stages.length;
  const from = unit === "share" ? " from FLOPs on equal devices" : "";
  const start = `Predicted${from}${work}:${unit === "share" ? "" : ` step ${formatSeconds(makespan_s)},`}`;
  const ranks = rows.length < numStages ? `, ${plural(numStages, "stage")} on ${plural(rows.length, "rank")}` : "";
  return `${start} idle ${percent(idle)}, ${plural(numMicrobatches, "micro-batch")}${ranks}`;
}

/** How the run went, against what was predicted for it; `apart` is what is drawn above it predicted for something else. */
export function measuredWords(report, apart = false) {
  const remarks = report.remarks ? `. ${report.remarks.replace(/\.$/, "")}` : "";
  return `${comparedWords(report, apart)}${remarks}`;
}

function comparedWords(report, apart) {
  const predicted_s = report.predicted?.makespan_s;
  const idle = `idle ${percent(report.idle)}`;
  const step = `Measured${apart ? " on this machine" : ""}: step ${formatSeconds(report.step_s)}`;
  const spread = report.spread ? ` (${report.spread})` : "";
  if (!predicted_s) return `${step}${spread}, ${idle}`;
  const above = report.step_s / predicted_s - 1;
  const off = `${Math.round(100 * above) < 0 ? "−" : "+"}${percent(Math.abs(above))}`;
  const difference = `${idle}: ${whereItDiffers(report, above)}`;
  if (apart) return `${step}${spread}, ${formatSeconds(predicted_s)} predicted for it (${off}), ${difference}`;
  return `${step} (${[report.spread, off].filter(Boolean).join("; ")}), ${difference}`;
}

// Nobody calls less a difference, in the step or in what a rank computes.
const AS_PREDICTED = 0.05;
const NOTABLE = 0.1;

/** The rank whose computing differs most from what was predicted, else that ranks wait more or less. */
function whereItDiffers({ rows, predicted }, above) {
  const computed = (events) => events.filter(([kind]) => isWork(kind)).reduce((sum, event) => sum + event[4] - event[3], 0);
  const far = rows.map((events, rank) => {
    const wanted = (predicted?.rows[rank] ?? []).reduce((sum, [from, to]) => sum + to - from, 0);
    return { rank, above: wanted ? computed(events) / wanted - 1 : 0 };
  });
  if (Math.abs(above) < AS_PREDICTED) return "as predicted";
  const { rank, above: most } = far.reduce((a, b) => (Math.abs(b.above) > Math.abs(a.above) ? b : a), { above: 0 });
  if (Math.abs(most) >= NOTABLE) {
    const all = far.every((one) => Math.sign(one.above) === Math.sign(most) && Math.abs(one.above) >= NOTABLE);
    const who = rows.length === 1 ? "it computes" : all ? `all ranks compute, rank ${rank} most,` : `rank ${rank} computes`;
    return `${who} ${percent(Math.abs(most))} ${most > 0 ? "longer" : "shorter"} than predicted`;
  }
  return above > 0 ? "ranks wait more than predicted" : "ranks wait less than predicted";
}

/** Why what was measured is not of what is predicted now; empty where it is. */
export function staleWords(report, { cuts, numMicrobatches, training }) {
  if (report.cuts.join() !== cuts.join()) return "measured for the previous split";
  if (report.num_microbatches !== numMicrobatches) return `measured with ${plural(report.num_microbatches, "micro-batch")}`;
  return training ? "measured in inference" : "";
}

export function eventWords(rank, [kind, stage, microbatch, from, to], { unit, end_s }) {
  const at = `${inUnit(from, unit, end_s)} to ${withUnit(inUnit(to, unit, end_s), unit)}`;
  const took = unit.name === "%" ? "" : ` (${formatSeconds(to - from)})`;
  if (kind === "wait") return `rank ${rank} waits: ${at}${took}`;
  return `rank ${rank}, stage ${stage}, micro-batch ${microbatch}, ${DOES[kind]}: ${at}${took}`;
}

/** A micro-batch's way through the stages, in order: each with its times, and what lies between. */
function wayOf(rows, microbatch) {
  const events = rows.flat().filter((event) => event[2] === microbatch).sort((a, b) => a[3] - b[3]);
  const way = events.filter(([kind]) => isWork(kind) && kind !== "W");
  return way.map(([kind, stage, , from, to], index) => {
    const gap = index ? from - way[index - 1][4] : 0;
    const sent = events.filter((event) => event[0] === "send" && index && event[3] >= way[index - 1][4] && event[4] <= from);
    const moves = sent.reduce((sum, event) => sum + event[4] - event[3], 0);
    return { kind, stage, from, to, waits: Math.max(0, gap - moves) };
  });
}

// A longer way is told shorter: stages passed without a wait are joined, and begin where the wait before them ends.
const SHORT_WAY = 6;

/** "micro-batch 2: stage 0 from 12 to 20 ms, waits 3 ms, stage 1 from 23 to 31 ms". */
export function stepWords(timeline, microbatch, { unit, end_s }) {
  const text = (time) => inUnit(time, unit, end_s);
  const way = wayOf(timeline.rows, microbatch);
  const long = way.length > SHORT_WAY;
  const trains = way.some(({ kind }) => kind !== "F");
  const legs = [];
  for (const { kind, stage, from, to, waits } of way) {
    const leg = legs.at(-1);
    if (long && leg && leg.kind === kind && !Number(text(waits))) Object.assign(leg, { last: stage, to });
    else legs.push({ kind, first: stage, last: stage, from, to, waits });
  }
  const parts = legs.map(({ kind, first, last, from, to, waits }, index) => {
    const pause = Number(text(waits)) ? `waits ${withUnit(text(waits), unit)}, ` : "";
    const who = first === last ? `stage ${first}` : `stages ${first} to ${last}`;
    const turns = trains && (!long || legs[index - 1]?.kind !== kind);
    const start = long && index ? "" : ` from ${text(from)}`;
    return `${pause}${turns ? (kind === "F" ? "forward " : "backward ") : ""}${who}${start} to ${withUnit(text(to), unit)}`;
  });
  return `micro-batch ${microbatch}: ${parts.join(", ")}`;
}
