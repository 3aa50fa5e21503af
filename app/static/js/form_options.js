// What is asked for: task, model and limits, as the controls say. Says "model" and "limits" when they change.

import { byId, html } from "./elements.js";
import { _, number } from "./words.js";

export class FormOptions extends EventTarget {
  #models = [];
  // What a person has set for one model is there again when they come back to it.
  #remembered = new Map();

  constructor(form) {
    super();
    this.form = form;
    this.select = byId("model");
    form.addEventListener("change", (event) => this.#chosen(event.target));
    form.addEventListener("input", (event) => this.#moved(event.target));
    byId("reset").addEventListener("click", () => this.#reset());
  }

  /** All models of the server; the choice is kept where it is still there. */
  set models(models) {
    if (JSON.stringify(models) === JSON.stringify(this.#models)) return;
    const before = this.#signature();
    this.#models = models;
    this.#offerTasks();
    this.#offerModels(this.select.value);
    if (this.#signature() === before) return;
    this.#restore();
    this.dispatchEvent(new Event("model"));
  }

  get task() {
    return this.form.elements.task.value;
  }

  /** How its answers are shown; tasks/base.py lists the ways. */
  get drawing() {
    return this.#radio.dataset.drawing;
  }

  get #radio() {
    return [...this.form.elements.task].find((radio) => radio.checked);
  }

  // The names of the limits that the chosen task knows.
  get #limits() {
    return this.#radio.dataset.limits.split(" ").filter(Boolean);
  }

  /** The chosen model as /v1/models describes it; undefined as long as that is not known. */
  get model() {
    const fitting = this.#models.filter((model) => model.task === this.task);
    return fitting.find((model) => key(model) === this.select.value) ?? fitting[0];
  }

  /** The labels that a model of this name and version knows, in its order. */
  labels({ name, version }) {
    return this.#models.find((model) => key(model) === key({ name, version }))?.labels ?? [];
  }

  /** What a request for a picture says: its task, and only those fields that differ from the model's defaults; and how the answer is shown. */
  asked() {
    const { task, model } = this;
    const fields = model ? { model: model.name, version: model.version } : {};
    for (const name of this.#limits) {
      const value = this.#input(name).value.trim();
      if (value !== "" && !(model && Number(value) === this.#default(name))) fields[name] = value;
    }
    if (this.explains) fields.explain = "true";
    return { task, fields, drawing: this.drawing, rows: this.#radio.dataset.rows };
  }

  /** Whether a person wants to see where a classifier looked. */
  get explains() {
    return this.drawing === "labels" && byId("explain").checked;
  }

  /** Whether a detection of an earlier answer fits what is asked for now. */
  keeps({ score, box }) {
    return score >= this.number("score_threshold")
      && box.x_max - box.x_min >= this.number("min_width")
      && box.y_max - box.y_min >= this.number("min_height");
  }

  number(name) {
    return Number(this.#input(name)?.value) || 0;
  }

  /** Set one limit as if a person had typed it. */
  set(name, value) {
    this.#input(name).value = value;
    this.#moved(this.#input(name));
  }

  #chosen(target) {
    if (target.name === "explain") this.dispatchEvent(new Event("limits"));
    if (target.name === "task") this.#offerModels("");
    if (target.name !== "task" && target !== this.select) return;
    this.#restore();
    this.dispatchEvent(new Event("model"));
  }

  #moved(target) {
    const name = target.dataset.for ?? target.name;
    if (!this.#limits.includes(name)) return;
    if (target.dataset.for) this.#input(name).value = Number(target.value).toFixed(digits(target));
    this.#show(name);
    this.#remembered.set(this.#remembering(), this.#values());
    this.dispatchEvent(new Event("limits"));
  }

  #reset() {
    this.#remembered.delete(this.#remembering());
    this.#restore();
    this.dispatchEvent(new Event("limits"));
  }

  #offerTasks() {
    const there = new Set(this.#models.map((model) => model.task));
    for (const radio of this.form.elements.task) radio.disabled = there.size > 0 && !there.has(radio.value);
    const usable = [...this.form.elements.task].map((radio) => radio.value).find((task) => there.has(task));
    if (usable && !there.has(this.task)) this.form.elements.task.value = usable;
  }

  #offerModels(chosen) {
    const fitting = this.#models.filter((model) => model.task === this.task);
    if (!fitting.length) return;
    this.select.replaceChildren(...fitting.map((model) => html("option", { value: key(model) }, title(model))));
    this.select.value = fitting.some((model) => key(model) === chosen) ? chosen : key(fitting[0]);
  }

  #restore() {
    const labels = this.model?.labels.length;
    if (labels) for (const input of this.form.querySelectorAll("[data-of-labels]")) input.max = labels;
    const values = this.#remembered.get(this.#remembering());
    const limits = this.#limits;
    // Tasks that are shown alike may have other options.
    for (const field of this.form.querySelectorAll("[data-option]")) field.hidden = !limits.includes(field.dataset.option);
    for (const name of limits) {
      const value = values?.[name] ?? this.#default(name);
      const input = this.#input(name);
      input.value = typeof value === "string" || input.step === "any" ? value : value.toFixed(digits(input));
      this.#show(name);
    }
  }

  #default(name) {
    if (!this.model) return "";
    const { min, dataset } = this.#input(name);
    const value = this.model.defaults?.[name];
    // Outside of what can be asked for: such as 0 for all.
    if (typeof value !== "number" || (min !== "" && value < Number(min))) return "";
    return "ofLabels" in dataset ? Math.min(value, this.model.labels.length) : value;
  }

  #show(name) {
    for (const slider of this.form.querySelectorAll(`[data-for="${name}"]`)) {
      slider.value = this.#input(name).value;
      const share = (slider.value - slider.min) / (slider.max - slider.min || 1);
      slider.style.setProperty("--filled", `${100 * share}%`);
    }
    byId("limits-summary").textContent = this.#summary();
  }

  #summary() {
    const [width, height] = [this.number("min_width"), this.number("min_height")];
    const size = width || height ? _("at least %(width)s × %(height)s px", { width, height }) : _("any size");
    const overlap = number(this.number("iou_threshold"), 2);
    return _("overlap %(overlap)s · at most %(most)s objects · %(size)s", { overlap, most: this.number("max_results"), size });
  }

  #input(name) {
    return byId(`option-${name}`);
  }

  #values() {
    return Object.fromEntries(this.#limits.map((name) => [name, this.#input(name).value]));
  }

  #remembering() {
    return this.model ? key(this.model) : this.task;
  }

  #signature() {
    // Not its state: an answer does not become wrong when the engine goes and comes back.
    return JSON.stringify([this.task, this.model && key(this.model), this.model?.digest, this.model?.defaults]);
  }
}

const key = ({ name, version }) => `${name}@${version}`;

const STATES = { loading: _("loading"), failed: _("failed to load"), unavailable: _("not available") };
const title = ({ name, version, state }) => `${name} ${version}${STATES[state] ? ` – ${STATES[state]}` : ""}`;

// As many digits behind the point as the control's step has.
const digits = ({ step }) => (step.split(".")[1] ?? "").length;
