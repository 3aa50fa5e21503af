// Shows the picture that is looked at and draws the boxes on it. Same markup as templates/answer.html.

import { html, renew, svg } from "./elements.js";
import { hue, percent, share } from "./figures.js";
import { _ } from "./words.js";

// The largest area a picture takes, in CSS pixels; app/web/pages/previews.py uses the same figures.
const STAGE_WIDTH = 800;
const STAGE_HEIGHT = 560;
// Nearer to the top than this share, a tag would leave the picture; it then goes inside its box.
const TOP_EDGE = 0.06;
// With more boxes the tags would hide the picture.
const DENSE = 40;

export class Stage {
  #picture = null;

  /** `onRemove(picture)` and `onPoint(index or null)` tell what a person did here. */
  constructor(section, { onRemove, onPoint }) {
    Object.assign(this, { section, onPoint });
    this.name = html("p", { className: "picture-name" });
    this.size = html("p", { className: "picture-size" });
    this.overlay = html("div");
    this.frame = html("div", { className: "frame" });
    this.progress = html("div", { className: "progress", hidden: true });
    this.canvas = html("figure", { className: "canvas" }, this.progress, this.frame);
    const remove = button(_("Remove"), () => onRemove(this.#picture));
    this.head = html("div", { className: "viewer-head" }, this.name, this.size, remove);
    // Around the drop zone, which becomes a button in the head's row.
    section.prepend(this.head);
    section.querySelector(".drop").after(this.canvas);
  }

  /** Show a picture with these detections of its answer. */
  show(picture, detections, labels) {
    this.section.classList.toggle("has-pictures", Boolean(picture));
    this.head.hidden = this.canvas.hidden = !picture;
    if (picture && picture !== this.#picture) this.#open(picture);
    this.#picture = picture;
    if (!picture) return;
    const result = picture.answer?.results[0];
    if (result) this.#resize(result.width, result.height);
    this.progress.hidden = picture.state !== "working" && picture.state !== "waiting";
    this.canvas.classList.toggle("is-refused", picture.state === "refused");
    this.#draw(result, detections, labels);
  }

  /** Let one box stand out; null for none. */
  point(index) {
    const boxes = this.frame.querySelector(".boxes");
    if (!boxes) return;
    boxes.classList.toggle("has-chosen", index !== null);
    for (const box of boxes.children) box.classList.toggle("is-chosen", box.dataset.index === String(index));
  }

  #open(picture) {
    this.name.textContent = picture.name;
    this.size.textContent = "";
    const image = html("img", { alt: picture.name, src: picture.url });
    this.image = image;
    this.frame.replaceChildren(image, this.overlay);
    // Another picture may be looked at by the time that this one is there.
    image.addEventListener("load", () => image === this.image && this.#resize(image.naturalWidth, image.naturalHeight));
    image.addEventListener("error", () => image === this.image && this.frame.replaceChildren(noPreview(), this.overlay));
  }

  #resize(width, height) {
    const scale = Math.min(STAGE_WIDTH / width, STAGE_HEIGHT / height);
    this.image.width = Math.max(1, Math.round(width * scale));
    this.image.height = Math.max(1, Math.round(height * scale));
    this.size.textContent = `${width} × ${height}`;
  }

  #draw(result, detections, labels) {
    const boxes = detections.length ? [this.#boxes(result, detections, labels)] : [];
    const over = [result?.explanation && looked(result.explanation), result && picture(result)].filter(Boolean);
    renew(this.overlay, ...boxes, ...over);
  }

  #boxes(result, detections, labels) {
    // The smallest comes last, so that it lies on top and can be pointed at.
    const placed = detections.map((detection, index) => ({ detection, index, area: area(detection.box) }));
    placed.sort((a, b) => b.area - a.area);
    const boxes = placed.map(({ detection, index }) => this.#box(detection, index, result, labels));
    // All tags lie above all boxes.
    const tags = placed.map(({ detection, index }) => tag(detection, index, result, labels));
    const dense = detections.length > DENSE ? " is-dense" : "";
    // The list beside the picture says the same to a screen reader.
    return svg("svg", { class: `boxes${dense}`, "aria-hidden": "true" }, ...boxes, ...tags);
  }

  #box({ label, box }, index, { width, height }, labels) {
    const place = {
      x: share(box.x_min / width), width: share((box.x_max - box.x_min) / width),
      y: share(box.y_min / height), height: share((box.y_max - box.y_min) / height), rx: 3,
    };
    const edge = svg("rect", { class: "box-edge", ...place });
    edge.addEventListener("pointerenter", () => this.onPoint(index));
    edge.addEventListener("pointerleave", () => this.onPoint(null));
    const attributes = { class: `box ${hue(label, labels)}`, "data-label": label, "data-index": index };
    return svg("g", attributes, svg("rect", { class: "box-casing", ...place }), edge);
  }
}

// Where the model looked, laid over the picture.
function looked({ label, overlay }) {
  return html("img", { className: "overlay", src: overlay, alt: _("Where the model looked for %(label)s", { label }) });
}

// What an answer shows of each part of the picture, such as its class, laid over it; the list beside it is the legend.
function picture(result) {
  const src = Object.values(result).find((value) => typeof value === "string" && value.startsWith("data:image/"));
  const alt = result.mask ? _("Mask of the classes") : _("The picture that it answers");
  return src && html("img", { className: "overlay is-mask", src, alt });
}

function tag({ label, score, box }, index, { width, height }, labels) {
  const [left, right, top] = [box.x_min / width, box.x_max / width, box.y_min / height];
  const isOnRight = (left + right) / 2 > 0.5;
  const isInside = top < TOP_EDGE;
  const line = html("div", { className: `tag-line${isOnRight ? " on-right" : ""}${isInside ? " is-inside" : ""}` },
    html("span", { className: "tag" }, label, html("b", {}, percent(score))));
  const place = {
    x: isOnRight ? "0%" : share(left), width: share(isOnRight ? right : 1 - left),
    y: share(top), height: 24, transform: `translate(0 ${isInside ? 2 : -24})`,
  };
  return svg("foreignObject", { class: `box-tag ${hue(label, labels)}`, "data-index": index, ...place }, line);
}

const area = ({ x_min: left, y_min: top, x_max: right, y_max: bottom }) => (right - left) * (bottom - top);

function noPreview() {
  const icon = html("img", { src: new URL("../picture.svg", import.meta.url).href, alt: "", width: 52, height: 52 });
  return html("p", { className: "no-preview" }, icon, _("This browser cannot show the picture."));
}

function button(words, onClick) {
  const element = html("button", { type: "button", className: "button button-quiet" }, words);
  element.addEventListener("click", onClick);
  return element;
}
