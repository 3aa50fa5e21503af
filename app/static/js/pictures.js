// The pictures on the page and which one is looked at. Says "change" when either changes.

import { _ } from "./words.js";

let lastId = 0;

/**
 * One picture. `state`: waiting, working, done, refused, away. `answer` holds the last answer and stays while the
 * picture is asked for again; `error` says why it was refused or has to wait.
 */
class Picture {
  constructor(blob, name) {
    Object.assign(this, { id: ++lastId, blob, name, state: "waiting", answer: null, error: null });
    this.url = URL.createObjectURL(blob);
  }
}

export class Pictures extends EventTarget {
  #all = [];
  #selected = null;

  get all() {
    return this.#all;
  }

  get selected() {
    return this.#selected;
  }

  /** Put files on the page; the first of them is looked at. */
  add(files) {
    const added = [...files].map((file) => new Picture(file, file.name || _("pasted image")));
    if (!added.length) return;
    this.#all.push(...added);
    this.#selected = added[0];
    this.changed();
  }

  select(picture) {
    this.#selected = picture;
    this.changed();
  }

  remove(picture) {
    const place = this.#all.indexOf(picture);
    this.#all.splice(place, 1);
    URL.revokeObjectURL(picture.url);
    if (this.#selected === picture) this.#selected = this.#all[Math.min(place, this.#all.length - 1)] ?? null;
    this.changed();
  }

  clear() {
    for (const picture of this.#all) URL.revokeObjectURL(picture.url);
    this.#all = [];
    this.#selected = null;
    this.changed();
  }

  /** Something about a picture is different now. */
  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
