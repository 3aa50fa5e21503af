// Puts the page together: pictures come in, are asked for, and are shown with their answers.

import { Answer, inWords } from "./answer.js";
import { Asking } from "./asking.js";
import { byId } from "./elements.js";
import { Engine } from "./engine.js";
import { countLabels, hasBoxes, objects, rowsOf } from "./figures.js";
import { Filmstrip } from "./filmstrip.js";
import { openIntake } from "./intake.js";
import { countdown, spoken } from "./notices.js";
import { Pictures } from "./pictures.js";
import { Service } from "./service.js";
import { Stage } from "./stage.js";
import { FormOptions } from "./form_options.js";
import { _ } from "./words.js";

const form = byId("ask");
const announcement = byId("announcement");
const trouble = byId("trouble");
const service = new Service(form.dataset.api);
const pictures = new Pictures();
const options = new FormOptions(form);
const asking = new Asking(service, pictures, () => options.asked());

const stage = new Stage(byId("stage"), {
  onRemove: (picture) => pictures.remove(picture),
  onPoint: point,
});
const filmstrip = new Filmstrip(byId("filmstrip"), {
  onSelect: (picture) => pictures.select(picture),
  onClear: () => pictures.clear(),
});
const answer = new Answer(byId("answer"), {
  onPoint: point,
  onRetry: (picture) => asking.retry(picture),
  onRetryNow: () => asking.now(),
  onLower: (threshold) => options.set("score_threshold", threshold),
  pausedUntil: () => asking.pausedUntil,
});
const engine = new Engine(byId("engine"), service, {
  onModels: (models) => { options.models = models; },
  onReady: () => asking.now(),
});

let isRendering = false;
let rendered = [];
let told = "";

pictures.addEventListener("change", () => {
  trouble.hidden = true;
  asking.go();
  renderSoon();
});
options.addEventListener("limits", () => askAgain());
options.addEventListener("model", () => {
  for (const picture of pictures.all) picture.answer = null;
  askAgain();
});
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("online", () => asking.now());
setInterval(tick, 500);

openIntake({
  stage: byId("stage"),
  input: byId("image_upload"),
  samples: document.querySelectorAll(".sample"),
  pictures,
  say: (words) => Object.assign(trouble, { textContent: words, hidden: false }),
});
renderSoon();
engine.watch();

function askAgain() {
  if (pictures.all.length) asking.again();
  renderSoon();
}

// Several changes in one turn make one rendering.
function renderSoon() {
  if (isRendering) return;
  isRendering = true;
  queueMicrotask(() => {
    isRendering = false;
    render();
  });
}

function render() {
  const picture = pictures.selected;
  filmstrip.show(pictures.all, picture, found);
  const detections = picture ? shown(picture) : [];
  const asked = options.asked();
  const facts = [picture, picture?.state, picture?.answer, picture?.error, detections.length,
    options.model, JSON.stringify(asked)];
  // What another picture does is no reason to make everything new under a person's fingers.
  if (facts.every((fact, place) => fact === rendered[place])) return;
  rendered = facts;
  show(picture, detections, asked);
}

function show(picture, detections, asked) {
  const labels = picture?.answer ? options.labels(picture.answer.model) : [];
  stage.show(picture, detections, labels);
  answer.show(picture, {
    detections, labels, model: options.model, drawing: options.drawing, options: asked, url: service.url(asked.task),
    threshold: options.number("score_threshold"),
  });
  if (picture) tell(picture, detections);
}

// The detections of a picture. While a new answer is on its way, what no longer fits is left out at once.
function shown({ answer: given, state }) {
  const detections = hasBoxes(given) ? rowsOf(given) : [];
  return state === "done" ? detections : detections.filter((detection) => options.keeps(detection));
}

function found(picture) {
  return hasBoxes(picture.answer) ? shown(picture).length : undefined;
}

function tell(picture, detections) {
  const words = spoken(picture, summary(picture, detections));
  if (words && words !== told) announcement.textContent = words;
  if (words) told = words;
}

function summary({ answer: given }, detections) {
  if (!given) return "";
  if (!hasBoxes(given)) return inWords(given);
  return detections.length ? `${objects(detections.length)}, ${countLabels(detections)}` : _("nothing found");
}

function point(index) {
  stage.point(index);
  answer.point(index);
}

function tick() {
  const line = document.querySelector(".countdown");
  if (line && asking.pausedUntil) line.textContent = countdown(asking.pausedUntil);
}
