// Figures and counts as people read them; app/pages/drawing.py writes the same.

/** 0.973 is `97%`; with one digit `97.3%`. */
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;

/** `0.4 ms`, `17 ms`: two digits are as much as one can read. */
export const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

/** `sha256:` and enough characters to tell versions apart. */
export function shortDigest(digest) {
  const [kind, characters] = digest.includes(":") ? digest.split(":") : ["", digest];
  return (kind && `${kind}:`) + characters.slice(0, 12);
}

/** `1 object`, `3 objects`. */
export const objects = (number) => `${number} object${number === 1 ? "" : "s"}`;

/** `2 cone, 1 helmet`: what was found, most frequent first. */
export function countLabels(detections) {
  const counted = new Map();
  for (const { label } of detections) counted.set(label, (counted.get(label) ?? 0) + 1);
  return [...counted].sort((a, b) => b[1] - a[1]).map(([label, number]) => `${number} ${label}`).join(", ");
}

// So many .hue-N classes stand in css/picture.css.
const HUES = 10;

/** The colour of a label: its place among the model's labels, so it stays the same from picture to picture. */
export const hue = (label, labels) => `hue-${Math.max(0, labels.indexOf(label)) % HUES}`;
