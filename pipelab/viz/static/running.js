// Running the split: what the Run button asks for, and what is told of it.

const NO_ANSWER_MS = 4000;
const ENDED = ["done", "failed", "cancelled", "refused"];

export class Running {
  constructor(view) {
    this.view = view;
    this.pending = false;
    this.dismissed = null;
    this.read();
  }

  read() {
    this.state = this.view.traits.get("_run_state");
  }

  /** Python says how it goes. */
  hear() {
    this.pending = false;
    this.dismissed = null;
    this.read();
  }

  get active() {
    return this.state.phase === "running" || this.pending;
  }

  get cancellable() {
    return this.state.cancellable !== false;
  }

  /** Whether how the last run ended is still to be told: not once the split has moved since. */
  get ended() {
    return ENDED.includes(this.state.phase) && this.dismissed !== this.state;
  }

  dismiss() {
    if (this.state.phase !== "running") this.dismissed = this.state;
  }

  /** The kernel is gone, and with it whatever ran. */
  lose() {
    this.pending = false;
    if (this.state.phase === "running") this.state = { phase: "idle" };
  }

  press() {
    const { view } = this;
    if (this.active) {
      view.send({ type: "cancel" });
      return;
    }
    // With what to run: a change of a trait waits until the kernel has taken in the one before, a message does not.
    this.ask({ type: "run", cuts: view.cuts, num_microbatches: view.numMicrobatches });
  }

  /** Ask for something that takes a while, and say so if nobody answers. */
  ask(message) {
    const { view } = this;
    if (!view.send(message)) return;
    this.pending = true;
    view.note = null;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (!this.pending) return;
      this.pending = false;
      view.tell("The kernel does not answer: it is busy or gone. Dragging works; what was asked for starts once it is free.", undefined, "failed");
    }, NO_ANSWER_MS);
    view.paint();
  }

  stop() {
    clearTimeout(this.timer);
  }
}
