// Runs once, with `element`: the button of a chip takes its class out of the words.
element.addEventListener("click", (event) => {
  const pressed = event.target.closest("button.remove");
  if (!pressed) return;
  const left = [...element.querySelectorAll("button.remove")]
    .filter((button) => button !== pressed)
    .map((button) => button.dataset.name);
  const words = document.querySelector("#words textarea");
  // A single class with synonyms needs its semicolon; else commas would separate classes.
  words.value = left.join("\n") + (left.length === 1 && left[0].includes(",") ? ";" : "");
  words.dispatchEvent(new Event("input", { bubbles: true }));
  words.focus();
});
