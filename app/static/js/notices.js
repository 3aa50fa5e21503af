// Every state that is not an answer, in words.

import { html } from "./elements.js";
import { hasBoxes, percent } from "./figures.js";
import { Unreachable } from "./service.js";
import { _ } from "./words.js";

// Below this there is nothing to be gained by going lower.
const LOWEST_THRESHOLD = 0.1;

/**
 * The notice for a picture, or null where its answer says everything. `actions`: {onRetry, onLower} for the buttons,
 * `pausedUntil` when the next attempt is made.
 */
export function notice(picture, context, actions) {
  if (!picture) return empty();
  if (picture.state === "refused") return refused(picture, actions);
  if (picture.state === "away") return away(picture, actions);
  if (!picture.answer) return working(context);
  return hasBoxes(picture.answer) && !context.detections.length ? nothing(context, actions) : null;
}

/** What a screen reader is told when a picture's state has changed; empty where there is no news. */
export function spoken(picture, summary) {
  if (picture.state === "done") return `${picture.name}: ${summary}`;
  if (picture.state === "refused") return _("%(name)s was refused. %(reason)s", { name: picture.name, reason: picture.error.problem.detail });
  if (picture.state === "away") return _("%(reason)s. It is tried again by itself.", { reason: awayWords(picture.error).title });
  return "";
}

/** `Trying again in 3 s.`; kept up to date by whoever shows it. */
export function countdown(until) {
  const seconds = Math.ceil((until - Date.now()) / 1000);
  return seconds > 0 ? _("Trying again in %(seconds)s s.", { seconds }) : _("Trying again …");
}

function empty() {
  return part("", _("No image yet"), [_("Choose one, or take a sample. The answer stands here.")]);
}

function working({ model }) {
  return part("is-working", _("Working …"), [model ? _("Asking %(name)s.", { name: model.name }) : _("Asking the server.")]);
}

function nothing({ options, threshold }, { onLower }) {
  const score = percent(threshold);
  const words = options.fields.min_width || options.fields.min_height
    ? _("No object scores at least %(score)s and is large enough.", { score })
    : _("No object scores at least %(score)s.", { score });
  const element = part("", _("Nothing found"), [words]);
  if (threshold > LOWEST_THRESHOLD) {
    const lower = Math.max(LOWEST_THRESHOLD, Math.round(threshold * 50) / 100);
    element.append(button(_("Lower the threshold to %(score)s", { score: percent(lower) }), () => onLower(lower)));
  }
  return element;
}

function refused(picture, { onRetry }) {
  const { problem, status } = picture.error;
  const element = part("is-bad", problem.title, [problem.detail], problem.hint);
  if (problem.code) element.append(code(problem));
  // What is wrong on the server's side may be right the next time.
  if (status === 0 || status >= 500) element.append(html("div", {}, button(_("Try again"), () => onRetry(picture))));
  return element;
}

function away({ error }, { onRetryNow, pausedUntil }) {
  const { title, detail, hint } = awayWords(error);
  const element = part("is-waiting", title, [detail], hint);
  element.append(html("p", { className: "countdown" }, countdown(pausedUntil())));
  element.append(button(_("Try now"), onRetryNow));
  return element;
}

function awayWords(error) {
  if (!(error instanceof Unreachable)) return error.problem;
  return { title: _("The server cannot be reached"), detail: _("The network is down, or the server is not running.") };
}

function part(kind, title, paragraphs, hint) {
  return html("div", { className: `notice ${kind}` }, html("h2", {}, title),
    ...paragraphs.map((words) => html("p", { className: "message" }, words)),
    hint ? html("p", { className: "hint" }, hint) : null);
}

function code({ code: word, request_id: request }) {
  return html("p", { className: "code" }, html("code", {}, word), request ? ` · ${_("request")} ` : "",
    request ? html("code", {}, request) : "");
}

function button(words, onClick) {
  const element = html("button", { type: "button", className: "button" }, words);
  element.addEventListener("click", onClick);
  return element;
}
