// The light at the top: can the server predict? Asks often while it cannot, seldom while it can.

import { _ } from "./words.js";

const WHEN_READY_MILLISECONDS = 30_000;
const OTHERWISE_MILLISECONDS = 2_000;

// The same words as app/web/pages/try_image.py gives at first.
const LIGHTS = {
  ready: ["is-ready", _("Ready")],
  loading: ["is-loading", _("Loading models")],
  away: ["is-away", _("Engine away")],
  unreachable: ["is-away", _("Not reachable")],
};

export class Engine {
  #timer = null;
  #light = null;

  /** `onModels(models)` gets the list each time it was fetched; `onReady()` is told when the engine comes back. */
  constructor(element, service, { onModels, onReady }) {
    Object.assign(this, { element, service, onModels, onReady });
  }

  /** Look now, and from now on again and again. */
  async watch() {
    clearTimeout(this.#timer);
    const light = await this.#look();
    const wasAway = this.#light && this.#light !== "ready";
    this.#show(light);
    if (light === "ready" && wasAway) this.onReady();
    this.#timer = setTimeout(() => this.watch(), light === "ready" ? WHEN_READY_MILLISECONDS : OTHERWISE_MILLISECONDS);
  }

  async #look() {
    let models;
    try {
      models = await this.service.models();
    } catch {
      return "unreachable";
    }
    this.onModels(models);
    const states = models.map((model) => model.state);
    if (states.includes("loading")) return "loading";
    return states.includes("ready") ? "ready" : "away";
  }

  #show(light) {
    // Said once, not every two seconds: the element is a live region.
    if (light === this.#light) return;
    this.#light = light;
    const [kind, words] = LIGHTS[light];
    this.element.className = `engine ${kind}`;
    this.element.textContent = words;
  }
}
