// The panel beside the picture: the answer, or the state in words. Same markup as templates/answer.html.

import { copy } from "./clipboard.js";
import { command } from "./curl.js";
import { html, renew, svg } from "./elements.js";
import { countLabels, hasBoxes, hue, milliseconds, objects, percent, rowsOf, share, shortDigest } from "./figures.js";
import { notice } from "./notices.js";
import { _ } from "./words.js";

// Which of the server's timings are shown, and in which words.
const STEPS = { decode: _("decode"), queue: _("queue"), predict: _("model"), model: _("model"), explain: _("explain") };

export class Answer {
  /** `onPoint(index or null)` tells which row a person points at. The rest is in `actions` of notices.js. */
  constructor(panel, { onPoint, ...actions }) {
    Object.assign(this, { onPoint, actions });
    this.main = html("div");
    this.timing = html("div", { className: "answer-part" });
    this.model = html("div", { className: "answer-part" });
    this.curl = fold(_("The same with curl"), _("Copy command"));
    this.json = fold(_("Answer as JSON"), _("Copy JSON"));
    panel.replaceChildren(this.main, this.timing, this.model, this.curl.element, this.json.element);
  }

  /** Show how it stands with a picture. `context`: {detections, labels, model, options, url}. */
  show(picture, context) {
    const { answer, state } = picture ?? {};
    const isAnswered = Boolean(answer) && state !== "refused";
    const words = notice(picture, context, this.actions);
    renew(this.main, ...[words, isAnswered && this.#answered(answer, context)].filter(Boolean));
    this.#showTiming(isAnswered ? answer : null);
    this.#showModel(context, isAnswered);
    this.curl.show(picture ? command(context.url, picture.name, context.options.fields) : "");
    this.json.show(isAnswered ? JSON.stringify(answer.body, null, 2) : "");
  }

  /** Mark the row of one box; null for none. */
  point(index) {
    this.main.querySelectorAll("button.row").forEach((row, place) => row.setAttribute("aria-pressed", place === index));
  }

  #answered(answer, { detections, labels }) {
    if (!hasBoxes(answer)) return PARTS[answer.drawing](rowsOf(answer));
    return detections.length ? this.#detections(detections, labels) : null;
  }

  #detections(detections, labels) {
    const rows = detections.map((detection, index) => this.#row(detection, index, labels));
    return html("div", { className: "answer-part" },
      html("h2", {}, objects(detections.length)),
      html("p", { className: "summary" }, countLabels(detections)),
      html("ol", { className: "found" }, ...rows.map((row) => html("li", {}, row))));
  }

  #row({ label, score }, index, labels) {
    const colour = hue(label, labels);
    const row = html("button", { type: "button", className: "row", "aria-pressed": "false" },
      html("span", { className: `swatch ${colour}` }), html("span", { className: "row-label" }, label),
      bar(score, colour), html("span", { className: "row-score" }, percent(score, 1)));
    for (const event of ["pointerenter", "focus"]) row.addEventListener(event, () => this.onPoint(index));
    for (const event of ["pointerleave", "blur"]) row.addEventListener(event, () => this.onPoint(null));
    return row;
  }

  #showTiming(answer) {
    this.timing.hidden = !answer;
    if (!answer) return;
    const steps = Object.entries(STEPS).filter(([name]) => name in answer.timings)
      .map(([name, words]) => time(words, answer.timings[name]));
    this.timing.replaceChildren(html("dl", { className: "timing" }, ...steps, time(_("in all"), answer.milliseconds)));
  }

  #showModel({ model, drawing }, isAnswered) {
    this.model.hidden = !model;
    if (!model) return;
    const labels = model.labels.map((label) => html("li", {},
      drawing === "boxes" ? html("span", { className: `swatch ${hue(label, model.labels)}` }) : null, label));
    this.model.replaceChildren(
      html("p", { className: "model-name" }, model.name, " ", html("span", {}, _("version %(version)s", { version: model.version }))),
      html("p", { className: "model-facts" }, html("code", {}, shortDigest(model.digest))),
      ...(model.demonstration ? [caveat(_("Demonstration model: trained on rendered scenes"))] : []),
      ...(model.random_weights ? [caveat(_("Random weights: its answers mean nothing"))] : []),
      ...(isAnswered ? [] : [html("ul", { className: "labels", "aria-label": _("Labels it knows") }, ...labels)]));
  }
}

function predictions(rows) {
  const [best] = rows;
  return html("div", { className: "answer-part" },
    html("h2", {}, best ? best.label : _("No label")),
    html("p", { className: "summary" }, best ? mostLikely(best) : _("None was asked for.")),
    html("ol", { className: "predictions" }, ...rows.map(({ label, score }) => html("li", { className: "prediction" },
      html("span", { className: "row-label" }, label),
      html("span", { className: "row-score" }, percent(score, 1)), bar(score)))));
}

function segments(rows) {
  const [largest] = rows;
  return html("div", { className: "answer-part" },
    html("h2", {}, largest ? largest.label : _("No class")),
    largest ? html("p", { className: "summary" }, _("%(share)s of the picture", { share: percent(largest.area, 1) })) : null,
    html("ol", { className: "found" }, ...rows.map(({ label, area, colour }) => html("li", { className: "row" },
      svg("svg", { class: "swatch own", color: colour, "aria-hidden": "true" }), html("span", { className: "row-label" }, label),
      bar(area, "own", colour), html("span", { className: "row-score" }, percent(area, 1))))));
}

function vector(numbers) {
  return html("div", { className: "answer-part" },
    html("h2", {}, _("A vector of %(count)s numbers", { count: numbers.length })),
    html("p", { className: "summary" }, html("code", {}, numbers.slice(0, 8).join(", "), numbers.length > 8 ? ", …" : "")));
}

function table(rows) {
  const [first] = rows;
  return html("div", { className: "answer-part" },
    html("h2", {}, first === undefined ? _("Nothing found") : cells(first)[0]),
    html("ol", { className: "predictions" }, ...rows.map(cells).map(([name, ...others]) => html("li", { className: "prediction" },
      html("span", { className: "row-label" }, name), html("span", { className: "row-score" }, others.join(", "))))));
}

// What a row says: its texts as they are, each other value behind its name; drawing.py writes the same.
const cells = (row) => Object.entries(isTable(row) ? row : { "": row }).filter(([, value]) => !isTable(value))
  .map(([name, value]) => (typeof value === "string" || !name ? short(value) : `${name.replaceAll("_", " ")} ${short(value)}`));

const isTable = (value) => value instanceof Object && !Array.isArray(value);

function short(value) {
  if (Array.isArray(value)) return `[${value.slice(0, 8).map(short).join(", ")}${value.length > 8 ? ", …" : ""}]`;
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value).slice(0, 80);
}

// The part that shows an answer without boxes, by how its task is drawn.
const PARTS = { labels: predictions, mask: segments, vector, table };

/** A screen reader's sentence about an answer without boxes. */
export function inWords(answer) {
  const rows = rowsOf(answer);
  if (answer.drawing === "vector") return _("A vector of %(count)s numbers", { count: rows.length });
  const [first] = rows;
  if (first === undefined) return answer.drawing === "labels" ? _("no label") : _("nothing found");
  if (answer.drawing === "mask") return _("%(label)s, %(share)s of the picture", { label: first.label, share: percent(first.area, 1) });
  return answer.drawing === "labels" ? `${first.label}, ${percent(first.score, 1)}` : cells(first).join(", ");
}

const mostLikely = ({ score }) => _("Most likely, with %(score)s", { score: percent(score, 1) });

const bar = (score, kind = "", color = "currentcolor") => svg("svg", { class: `bar ${kind}`, color, "aria-hidden": "true" },
  svg("rect", { width: share(score), height: "100%", rx: 3 }));

const time = (words, value) => html("div", {}, html("dt", {}, words), html("dd", {}, milliseconds(value)));

const caveat = (words) => html("p", { className: "caveat" }, words);

// A part that opens, with text to copy. It stays in the page, so that it stays open from answer to answer.
function fold(title, copyWords) {
  const code = html("code");
  const button = html("button", { type: "button", className: "button button-quiet copy" }, copyWords);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(code.textContent)) ? _("Copied") : _("Select it and copy it");
    setTimeout(() => { button.textContent = copyWords; }, 2000);
  });
  const block = html("pre", { className: "code-block", tabIndex: 0 }, code);
  const element = html("details", { className: "fold", hidden: true }, html("summary", {}, title),
    html("div", { className: "fold-body" }, block, button));
  const show = (text) => {
    element.hidden = !text;
    code.textContent = text;
  };
  return { element, show };
}
