// How time passes in a replay, as pipelab/clocks.py counts it: ranks compute at their own speed, or share cores.

/** Time that jumps from one end to the next; what ends at the same time ends in the order in which it was begun. */
export class Clock {
  constructor() {
    this.now = 0;
    this.begun = 0;
    this.ends = []; // a binary heap
  }

  /** Call `then(what)` at this time. */
  at(time, then, what) {
    const { ends } = this;
    const end = { time, order: this.begun++, then, what };
    let place = ends.length;
    while (place && isBefore(end, ends[(place - 1) >> 1])) {
      ends[place] = ends[(place - 1) >> 1];
      place = (place - 1) >> 1;
    }
    ends[place] = end;
  }

  /** Call `then(what)` when a core has done what takes it so long alone. */
  compute(alone, _loaded, then, what) {
    this.at(this.now + alone, then, what);
  }

  /** Go to the next end and call what was to be called; false if nothing is under way. */
  step() {
    if (!this.ends.length) return false;
    const { time, then, what } = this.pop();
    this.now = time;
    then(what);
    return true;
  }

  pop() {
    const { ends } = this;
    const first = ends[0];
    const last = ends.pop();
    if (!ends.length) return first;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child + 1 < ends.length && isBefore(ends[child + 1], ends[child])) child += 1;
      if (child >= ends.length || !isBefore(ends[child], last)) break;
      ends[place] = ends[child];
      place = child;
    }
    ends[place] = last;
    return first;
  }
}

const isBefore = (a, b) => a.time < b.time || (a.time === b.time && a.order < b.order);

/**
 * Ranks share a machine that can compute for `parallel` of them at once. A task takes from its seconds alone to its
 * seconds loaded while up to `parallel` ranks compute; beyond, each gets its share of the time (processor sharing).
 */
export class SharedClock extends Clock {
  constructor(parallel) {
    super();
    this.parallel = parallel;
    this.tasks = [];
  }

  compute(alone, loaded, then, what) {
    this.tasks.push({ left: 1, alone, extra: loaded - alone, full: alone, then, what });
  }

  step() {
    const { tasks, parallel } = this;
    if (!tasks.length) return super.step();
    const load = parallel > 1 ? (Math.min(tasks.length, parallel) - 1) / (parallel - 1) : 1;
    const stretch = Math.max(tasks.length / parallel, 1);
    let first = -1;
    let end = this.ends.length ? this.ends[0].time : Infinity;
    for (const [index, task] of tasks.entries()) {
      task.full = (task.alone + task.extra * load) * stretch;
      const taskEnd = this.now + task.left * task.full;
      if (taskEnd < end) [first, end] = [index, taskEnd];
    }
    this.pass(end - this.now);
    if (first < 0) return super.step();
    this.now = end;
    const [{ then, what }] = tasks.splice(first, 1);
    then(what);
    return true;
  }

  pass(seconds) {
    for (const task of this.tasks) {
      if (task.full > 0) task.left = Math.max(task.left - seconds / task.full, 0);
    }
  }
}
