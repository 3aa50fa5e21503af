// Figures and counts as people read them; app/web/pages/drawing.py writes the same.

import { ngettext, number } from "./words.js";

export { percent } from "./words.js";

/** A share of one as a length of SVG: 0.973 is `97.30%`. */
export const share = (value) => `${(100 * value).toFixed(2)}%`;

/** `0.4 ms`, `17 ms`: two digits are as much as one can read. */
export const milliseconds = (value) => `${number(value, value < 10 ? 1 : 0)} ms`;

/** `sha256:` and enough characters to tell versions apart. */
export function shortDigest(digest) {
  const [kind, characters] = digest.includes(":") ? digest.split(":") : ["", digest];
  return (kind && `${kind}:`) + characters.slice(0, 12);
}

/** `1 object`, `3 objects`. */
export const objects = (count) => ngettext("%(num)s object", "%(num)s objects", count);

/** Whether an answer is a list of objects with boxes. */
export const hasBoxes = (answer) => answer?.drawing === "boxes";

/** The rows of an answer to one image. */
export const rowsOf = ({ results: [result], rows }) => result[rows];

/** `2 cone, 1 helmet`: what was found, most frequent first. */
export function countLabels(detections) {
  const counted = new Map();
  for (const { label } of detections) counted.set(label, (counted.get(label) ?? 0) + 1);
  return [...counted].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} ${label}`).join(", ");
}

// So many .hue-N classes stand in css/picture.css.
const HUES = 10;

/** The colour of a label: its place among the model's labels, so it stays the same from picture to picture. */
export const hue = (label, labels) => `hue-${Math.max(0, labels.indexOf(label)) % HUES}`;
