// Show a chosen picture before it is sent, and bring the answer into view on a narrow window.

for (const input of document.querySelectorAll("input[data-preview]")) {
  input.addEventListener("change", () => {
    const picture = document.getElementById(input.dataset.preview);
    URL.revokeObjectURL(picture.src);
    const file = input.files[0];
    picture.hidden = !file;
    picture.onerror = () => { picture.hidden = true; };
    if (file) picture.src = URL.createObjectURL(file);
  });
}

const answer = document.querySelector("#answer[tabindex]");
const wrong = document.querySelector("[aria-invalid]");
if (wrong) wrong.focus();
else if (answer) answer.focus({ preventScroll: answer.getBoundingClientRect().top < window.innerHeight / 2 });
