// What ranks hold in memory while they work off their orders.

import { mostHeld } from "./schedules.js";

/** Of each rank the bytes it holds all the time and at most, given what its stages take for one micro-batch. */
export function rankMemory(memories, orders) {
  const rank_bytes = orders.map((_, rank) => {
    const held = memories.filter((_, stage) => stage % orders.length === rank);
    return held.reduce((sum, { weights, gradients, caches }) => sum + weights + gradients + caches, held[0].reserve);
  });
  const peaks = orders.map((order) => mostHeld(order, (stage) => memories[stage].activations));
  return { rank_bytes, peak_bytes: rank_bytes.map((bytes, rank) => bytes + peaks[rank]) };
}

/** The most micro-batches of each stage whose activations are held at once. */
export function mostInFlight(orders, numStages) {
  const count = (stage) => mostHeld(orders[stage % orders.length], (other) => Number(other === stage));
  return Array.from({ length: numStages }, (_, stage) => count(stage));
}
