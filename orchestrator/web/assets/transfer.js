// One file on its way: first the clip's row, then the bytes; paused, taken up again, tried again, given up.

import { alone, forget, keep, keyOf, recall } from "./remembering.js";
import { sendResumable } from "./resumable.js";
import { CallFailed, documentOf, sendForm } from "./sending.js";

// Speed is that of the last seconds: long enough to be calm, short enough to be true.
const WINDOW_MS = 8000;
// Answers that mean the address is no good any more: what was begun there is begun anew.
const GONE = [403, 404, 410];

export class Transfer {
  state = "waiting"; // starting, sending, retrying, paused, sent, failed, cancelled
  sent = 0;
  clip = null;
  problem = "";
  /** Set by whoever lists the file: what the clip is called, and whether to go on with what was begun before. */
  title = "";
  startsAnew = false;
  #key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  #control = null;
  #marks = [];

  constructor(file, { isResumable, onChange }) {
    this.file = file;
    this.isResumable = isResumable;
    this.wasBegun = isResumable && Boolean(recall(file));
    this.onChange = onChange;
  }

  get isMoving() {
    return ["starting", "sending", "retrying"].includes(this.state);
  }

  get isOver() {
    return this.state === "sent" || this.state === "cancelled";
  }

  /** Bytes a second of late, 0 while nothing can be told. */
  get rate() {
    const [first, last] = [this.#marks[0], this.#marks.at(-1)];
    return first && last.at - first.at > 500 ? (1000 * (last.bytes - first.bytes)) / (last.at - first.at) : 0;
  }

  /** Send what is left; returns when it is sent, paused, given up or has failed: see *state*. */
  async run() {
    this.#control = new AbortController();
    this.#marks = [];
    this.#become("starting");
    try {
      await alone(keyOf(this.file), () => this.#send(this.#control.signal));
      forget(keyOf(this.file));
      this.#become("sent");
    } catch (problem) {
      if (problem === "cancelled") return this.#giveUp();
      if (problem === "paused") return this.#become("paused");
      if (GONE.includes(problem.status) && this.clip) this.#letGo();
      this.#become("failed", problem.message ?? String(problem));
    }
  }

  pause() {
    if (this.isMoving) this.#control.abort("paused");
  }

  /** Give it up, and the clip that was begun with it. */
  cancel() {
    if (this.isMoving) return this.#control.abort("cancelled");
    this.#control = null;
    this.#giveUp();
  }

  async #send(signal) {
    if (this.startsAnew) this.#letGo();
    this.startsAnew = false;
    this.clip ??= (this.isResumable && recall(this.file)) || (await this.#create());
    signal.throwIfAborted();
    this.#become("sending");
    const send = this.clip.protocol === "form" ? sendForm : sendResumable;
    await send(this.file, this.clip.upload_url, {
      signal,
      onSent: (bytes) => this.#onSent(bytes),
      onRetry: (problem) => this.#become("retrying", problem.message),
    });
  }

  async #create() {
    const asked = { source: "upload", title: this.title || this.file.name, size_bytes: this.file.size };
    const answer = await fetch("/api/clips", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": this.#key },
      body: JSON.stringify({ ...asked, protocol: this.isResumable ? "tus" : "form" }),
    }).catch(() => { throw new CallFailed(0, "The service does not answer."); });
    const clip = await documentOf(answer);
    if (clip.protocol === "tus") keep(this.file, clip);
    return clip;
  }

  #giveUp() {
    this.#become("cancelled");
    // What was begun elsewhere, or not at all, is not this one's to end.
    if (!this.clip) return;
    forget(keyOf(this.file));
    // So that nobody waits for its bytes. When this fails there is nothing to mend: it ends with its upload address.
    fetch(`/api/clips/${encodeURIComponent(this.clip.id)}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  #letGo() {
    forget(keyOf(this.file));
    this.clip = null;
    this.wasBegun = false;
    this.#key = `${this.#key}+`;
  }

  #onSent(bytes) {
    const now = performance.now();
    this.sent = Math.min(bytes, this.file.size);
    this.#marks.push({ at: now, bytes: this.sent });
    while (this.#marks.length > 2 && now - this.#marks[0].at > WINDOW_MS) this.#marks.shift();
    this.#become("sending");
  }

  #become(state, problem = "") {
    // After a stop the calls under way may still say something.
    if (this.isOver || (this.#control?.signal.aborted && state !== this.#control.signal.reason)) return;
    if (state === "retrying") this.#marks = [];
    this.state = state;
    this.problem = problem;
    this.onChange(this);
  }
}
