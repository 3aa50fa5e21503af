// One small frame for each picture, with how it went. Kept from change to change, so that focus stays where it is.

import { html } from "./elements.js";
import { _, ngettext } from "./words.js";

export class Filmstrip {
  #frames = new Map();

  /** `onSelect(picture)` and `onClear()` tell what a person did here. */
  constructor(list, { onSelect, onClear }) {
    Object.assign(this, { list, onSelect });
    const clear = html("button", { type: "button", className: "frame-button frame-clear" }, _("Remove all"));
    clear.addEventListener("click", onClear);
    this.last = html("li", {}, clear);
    list.append(this.last);
  }

  /** Show these pictures. `count(picture)` is the number on its badge, undefined for none. */
  show(pictures, selected, count) {
    this.list.hidden = pictures.length < 2;
    for (const [picture, item] of this.#frames) if (!pictures.includes(picture)) this.#drop(picture, item);
    for (const picture of pictures) this.#update(picture, picture === selected, count(picture));
  }

  #drop(picture, item) {
    item.remove();
    this.#frames.delete(picture);
  }

  #update(picture, isSelected, number) {
    const item = this.#frames.get(picture) ?? this.#make(picture);
    const button = item.firstChild;
    const wasSelected = button.getAttribute("aria-current") === "true";
    button.setAttribute("aria-current", isSelected);
    button.setAttribute("aria-label", `${picture.name}: ${words(picture, number)}`);
    button.lastChild.className = `badge ${badge(picture)}`;
    button.lastChild.textContent = text(picture, number);
    button.lastChild.hidden = picture.state === "done" && number === undefined;
    if (isSelected && !wasSelected) item.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #make(picture) {
    const image = html("img", { src: picture.url, alt: "", width: 68, height: 68, loading: "lazy", decoding: "async" });
    const button = html("button", { type: "button", className: "frame-button" }, image, html("span", { className: "badge" }));
    button.addEventListener("click", () => this.onSelect(picture));
    const item = html("li", {}, button);
    this.#frames.set(picture, item);
    this.last.before(item);
    return item;
  }
}

const badge = ({ state }) => ({ refused: "is-bad", done: "" })[state] ?? "is-waiting";

const text = ({ state }, number) => ({ refused: "!", done: `${number ?? ""}` })[state] ?? "";

function words({ state, error }, number) {
  if (state === "refused") return _("refused, %(reason)s", { reason: error.problem.title });
  if (state === "done") return number === undefined ? _("answered") : ngettext("%(num)s found", "%(num)s found", number);
  return state === "working" ? _("working") : _("waiting");
}
