// Asks for one picture after another. When the engine or the network is away, waits and goes on by itself.

import { Away, Refused, Unreachable } from "./service.js";

// Few, so that one page leaves room for other callers; more than one, so that the engine can form batches.
const AT_ONCE = 3;
// A slider moves many times a second; ask when it rests.
const REST_MILLISECONDS = 200;
const UNREACHABLE_SECONDS = [2, 3, 5, 10];
const LONGEST_PAUSE_SECONDS = 60;

export class Asking {
  #running = new Map();
  #unreachable = 0;
  #rest = null;
  #pause = null;

  /** `options()` says what to ask for, {task, fields}, and how its answer is shown: {drawing, rows}. */
  constructor(service, pictures, options) {
    Object.assign(this, { service, pictures, options });
  }

  /** When the next attempt is made, in milliseconds of `Date.now()`; null while nothing is paused. */
  get pausedUntil() {
    return this.#pause?.until ?? null;
  }

  /** Ask for everything that waits, the picture that is looked at first. */
  go() {
    this.#forget();
    if (this.#rest) return;
    if (this.#pause) return this.#hold();
    let next;
    while (this.#running.size < AT_ONCE && (next = this.#next())) this.#ask(next);
  }

  /** Ask again for all pictures, because the options are different. */
  again() {
    for (const abort of this.#running.values()) abort.abort();
    this.#running.clear();
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.now(), REST_MILLISECONDS);
    for (const picture of this.pictures.all) picture.state = "waiting";
    this.pictures.changed();
  }

  /** Do not wait any longer. */
  now() {
    clearTimeout(this.#rest);
    clearTimeout(this.#pause?.timer);
    this.#rest = null;
    this.#pause = null;
    for (const picture of this.pictures.all) if (picture.state === "away") picture.state = "waiting";
    this.go();
  }

  /** Ask once more for a picture that was refused. */
  retry(picture) {
    picture.state = "waiting";
    this.go();
  }

  #next() {
    const { all, selected } = this.pictures;
    return selected?.state === "waiting" ? selected : all.find((picture) => picture.state === "waiting");
  }

  // Pictures that were taken away need no answer.
  #forget() {
    for (const [picture, abort] of this.#running) {
      if (this.pictures.all.includes(picture)) continue;
      abort.abort();
      this.#running.delete(picture);
    }
  }

  async #ask(picture) {
    const abort = new AbortController();
    this.#running.set(picture, abort);
    this.#set(picture, "working", null);
    const outcome = await this.#outcome(picture, this.options(), abort.signal);
    // Whoever aborted has already said what happens to the picture next.
    if (abort.signal.aborted) return;
    this.#running.delete(picture);
    this.#settle(picture, outcome);
    this.go();
  }

  async #outcome(picture, { task, fields, drawing, rows }, signal) {
    try {
      return { ...await this.service.ask(task, picture.blob, picture.name, fields, signal), drawing, rows };
    } catch (error) {
      return error;
    }
  }

  #settle(picture, outcome) {
    if (!(outcome instanceof Error)) {
      this.#unreachable = 0;
      picture.answer = outcome;
      return this.#set(picture, "done", null);
    }
    if (outcome instanceof Refused) return this.#set(picture, "refused", outcome);
    if (!(outcome instanceof Away || outcome instanceof Unreachable)) throw outcome;
    this.#wait(this.#secondsToWait(outcome), outcome);
    picture.state = "waiting";
    return this.#hold();
  }

  // What stops one picture stops all: none is asked for before the pause ends.
  #hold() {
    const held = this.pictures.all.filter((picture) => picture.state === "waiting");
    for (const picture of held) Object.assign(picture, { state: "away", error: this.#pause.error });
    if (held.length) this.pictures.changed();
  }

  #secondsToWait(error) {
    if (error instanceof Away) return Math.min(error.retryAfterSeconds, LONGEST_PAUSE_SECONDS);
    return UNREACHABLE_SECONDS[Math.min(this.#unreachable++, UNREACHABLE_SECONDS.length - 1)];
  }

  #wait(seconds, error) {
    clearTimeout(this.#pause?.timer);
    const timer = setTimeout(() => this.now(), seconds * 1000);
    this.#pause = { until: Date.now() + seconds * 1000, timer, error };
  }

  #set(picture, state, error) {
    Object.assign(picture, { state, error });
    this.pictures.changed();
  }
}
