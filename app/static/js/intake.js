// The ways in: choose, drop, paste, samples.

import { _ } from "./words.js";

/** Bring pictures in from everywhere. `say(words)` tells a person what did not work. */
export function openIntake({ stage, input, samples, pictures, say }) {
  input.addEventListener("change", () => choose(input, pictures));
  addEventListener("paste", (event) => take(event, event.clipboardData, pictures, say));
  addEventListener("dragover", (event) => hover(event, stage));
  addEventListener("dragleave", (event) => event.relatedTarget ?? stage.classList.remove("is-dragging"));
  addEventListener("drop", (event) => drop(event, stage, pictures, say));
  for (const button of samples) button.addEventListener("click", (event) => trySample(event, button, pictures, say));
}

function choose(input, pictures) {
  const files = [...input.files];
  // Emptied, so that choosing the same file again is a change, and the plain form would not send it.
  input.value = "";
  pictures.add(files);
}

function hover(event, stage) {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  stage.classList.add("is-dragging");
}

function drop(event, stage, pictures, say) {
  stage.classList.remove("is-dragging");
  // Without this the browser would leave the page and show the file.
  event.preventDefault();
  take(event, event.dataTransfer, pictures, say);
}

function take(event, transfer, pictures, say) {
  const files = transfer?.files ?? [];
  if (files.length) {
    event.preventDefault();
    pictures.add(files);
  } else if (!event.target.matches?.("input, select")) {
    say(_("There was no file in that. Choose, drop or paste an image."));
  }
}

async function trySample(event, button, pictures, say) {
  event.preventDefault();
  const there = pictures.all.find((picture) => picture.name === button.value);
  if (there) return pictures.select(there);
  try {
    const response = await fetch(button.querySelector("img").src);
    if (!response.ok) throw new Error(`status ${response.status}`);
    return pictures.add([new File([await response.blob()], button.value)]);
  } catch {
    return say(_("The sample could not be fetched. Is the server still there?"));
  }
}
