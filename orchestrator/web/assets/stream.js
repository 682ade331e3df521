// One event stream: opened for what is followed, opened anew when it falls silent.

// The server beats every fifteen seconds: two beats missed, and some, mean that nothing comes through any more,
// whatever the connection says.
const SILENT_MS = 40_000;
const CHECK_MS = 5000;
// More clips than this are followed by following all: the address of a call has its limits.
const CLIPS_MAX = 150;

export class Stream {
  isOpen = false;
  /** When anything was last heard, in milliseconds since the epoch. */
  heardAt = 0;
  #source = null;
  #wanted = "";
  #openedAt = 0;
  #lastId = "";
  #timer = 0;
  #on;

  /** *on* has `clip(clip)`, and `open(isOpen, hasFailed)` for whenever events begin or cease to come. */
  constructor(on) {
    this.#on = on;
  }

  /** Follow *ids*: null for every clip, none for nothing at all. True when the stream begins anew. */
  follow(ids) {
    const query = ids === null || ids.length > CLIPS_MAX ? "" : ids.map((id) => `&clip=${encodeURIComponent(id)}`).join("");
    const wanted = ids === null || ids.length ? `/api/events?beats=1${query}` : "";
    if (wanted === this.#wanted && (!wanted || this.#source.readyState !== EventSource.CLOSED)) return false;
    this.#wanted = wanted;
    this.#close();
    if (wanted) this.#open();
    return true;
  }

  #open() {
    // A new stream is told what the former one had heard, so that nothing falls between the two.
    const source = new EventSource(this.#lastId ? `${this.#wanted}&after=${this.#lastId}` : this.#wanted);
    this.#source = source;
    this.#openedAt = Date.now();
    this.#timer = setInterval(() => this.#check(), CHECK_MS);
    // Not when it opens: a proxy may let the head through and hold the events back.
    source.addEventListener("beat", (event) => this.#hear(event));
    source.addEventListener("clip", (event) => {
      this.#hear(event);
      this.#on.clip(JSON.parse(event.data));
    });
    source.onerror = () => this.#tell(false, true);
  }

  #close() {
    clearInterval(this.#timer);
    this.#source?.close();
    this.#source = null;
    this.#tell(false, false);
  }

  #hear(event) {
    this.heardAt = Date.now();
    this.#lastId = event.lastEventId || this.#lastId;
    this.#tell(true, false);
  }

  #check() {
    if (Date.now() - Math.max(this.heardAt, this.#openedAt) < SILENT_MS) return;
    this.#close();
    this.#tell(false, true);
    this.#open();
  }

  #tell(isOpen, hasFailed) {
    if (isOpen === this.isOpen && !hasFailed) return;
    this.isOpen = isOpen;
    this.#on.open(isOpen, hasFailed);
  }
}
