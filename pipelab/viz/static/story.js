// The whole story of a stage or a cut, as text: what its card shows.

import { formatBytes, formatCount, formatNeed, formatSeconds, percent, plural, wholeBytes } from "./numbers.js";
import { dearest } from "./costs.js";
import { tensorOf } from "./values.js";

const MOST_ROWS = 6;

/** `{title, facts: [[term, text]], tables: [[caption, rows]]}`; a row is a tensor's name, shape and dtype, and bytes. */
export function stageStory({ costs, model, stages }, index) {
  const stage = stages[index];
  const { flow } = model;
  const last = stage.stop === model.numOps;
  const tensors = (values) => values.map((value) => tensorOf(model, value, costs.rows)).filter(Boolean);
  const enters = tensors(stage.start ? model.cut(stage.start).alive : inputsOf(model));
  const leaves = tensors(last ? flow.state.outputs : model.cut(stage.stop).alive);
  const passes = ({ value }) => (flow.reads(stage.start, stage.stop, value) ? "" : "passes through");
  const facts = [
    ["Holds", model.labels(stage)],
    ["Parameters", `${formatCount(stage.params)} (${formatBytes(stage.bytes)})`],
    ["Memory", memoryText(costs, stages, stage)],
    ["Computes", flopsText(costs, stages, stage)],
    ...(costs.timed ? [["Time", timeText(costs, stages, stage)], ["Device", costs.device]] : []),
  ];
  const tables = [
    [`${stage.start ? "Receives" : "Reads"} ${sumText(enters)}`, tensorRows(enters, passes)],
    [`${last ? "Returns" : "Sends"} ${sumText(leaves)}`, tensorRows(leaves, ({ value }) => (value < stage.start && !last ? "passes through" : ""))],
  ];
  return { title: `Stage ${index}`, facts, tables };
}

/** The same of a cut. */
export function cutStory({ costs, model, stages, cuts }, index) {
  const { label, alive } = model.cut(cuts[index]);
  const tensors = alive.map((value) => tensorOf(model, value, costs.rows));
  const readBy = ({ value }) => {
    const readers = stages.filter(({ start, stop, index: stage }) => stage > index && model.flow.reads(start, stop, value));
    return readers.length ? `for ${readers.length > 1 ? "stages" : "stage"} ${readers.map((stage) => stage.index).join(", ")}` : "an output";
  };
  const facts = costs.timed ? [["Time", `${formatSeconds(costs.transfer(cuts[index]))} to send`]] : [];
  return { title: `Split ${index + 1}, ${label}`, facts, tables: [[`Crosses: ${sumText(tensors)}`, tensorRows(tensors, readBy)]] };
}

/** The inputs that a call brings and some op reads. */
const inputsOf = ({ data, flow }) =>
  flow.state.inputs
    .map((_, k) => -1 - k)
    .filter((value) => flow.readers(value).length && !data.caches.includes(value));

function sumText(tensors) {
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  return `${plural(tensors.length, "tensor")}, ${formatBytes(bytes)} per micro-batch`;
}

function tensorRows(tensors, note) {
  const sorted = [...tensors].sort((a, b) => b.bytes - a.bytes);
  const shown = sorted.slice(0, sorted.length > MOST_ROWS ? MOST_ROWS - 1 : MOST_ROWS);
  const rows = shown.map((tensor) => [tensor.name, tensor.shape, formatBytes(tensor.bytes), note(tensor)]);
  const others = sorted.slice(shown.length);
  if (!others.length) return rows;
  return [...rows, [`${others.length} more`, "", formatBytes(others.reduce((sum, { bytes }) => sum + bytes, 0)), ""]];
}

function memoryText(costs, stages, { index, inFlight, memory, needs }) {
  const { weights, gradients, activations, caches, reserve } = memory;
  const of = inFlight === null ? "" : ` of ${plural(inFlight, "micro-batch")}`;
  const parts = [["weights", weights], ["gradients", gradients], [`activations${of}`, activations], ["KV cache", caches], ["reserve", reserve]];
  const sum = parts.filter(([, bytes]) => bytes).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`).join(" + ");
  if (costs.capacity === null) return `${formatBytes(needs)} = ${sum}`;
  if (needs <= costs.capacity) return `${formatBytes(needs)} of ${wholeBytes(costs.capacity)} = ${sum}`;
  const move = costs.wouldFit(stages, index);
  const would = move ? ` Would fit: ${move.label} in stage ${move.to}.` : "";
  return `needs ${formatNeed(needs, costs.capacity)} = ${sum}.${would}`;
}

function flopsText(costs, stages, { flops }) {
  const all = stages.reduce((sum, stage) => sum + stage.flops, 0);
  const share = all ? `, ${percent(flops / all)} of the model` : "";
  return `${formatCount(flops)}${/ [kMGT]$/.test(formatCount(flops)) ? "" : " "}FLOPs per micro-batch${share}`;
}

function timeText(costs, stages, stage) {
  const most = dearest(stages).cost;
  const moves = [stage.receive && `receives ${formatSeconds(stage.receive)}`, stage.send && `sends ${formatSeconds(stage.send)}`];
  const parts = [`computes ${formatSeconds(stage.work)}`, ...moves.filter(Boolean)].join(", ");
  const together = costs.state.overlap && parts.includes(",") ? ", side by side" : "";
  const share = stages.length === 1 ? "" : stage.cost === most ? "; the bottleneck" : `; ${percent(stage.cost / most)} of the bottleneck`;
  return `${formatSeconds(stage.cost)} per micro-batch: ${parts}${together}${share}`;
}
