// Runs once, with `element`: what the page shows of a result, which is replaced with every result.
// Texts are moved as text, never as HTML.
let ids = null; // of the picture that is shown: {source, width, height, values}

function segmentIds() {
  const image = element.querySelector("img.ids");
  if (!image || !image.complete || !image.naturalWidth) return null;
  if (ids && ids.source === image.src) return ids;
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  const values = new Uint16Array(canvas.width * canvas.height);
  for (let i = 0; i < values.length; i++) values[i] = pixels[4 * i] + 256 * pixels[4 * i + 1];
  ids = { source: image.src, width: canvas.width, height: canvas.height, values };
  return ids;
}

// Darken all other segments, and show the row of this one; 0: none.
function mark(segment) {
  const canvas = element.querySelector("canvas.marked");
  const found = segmentIds();
  if (!canvas || !found || canvas.dataset.segment === String(segment)) return;
  canvas.dataset.segment = segment;
  canvas.width = found.width;
  canvas.height = found.height;
  for (const row of element.querySelectorAll(".legend li"))
    row.classList.toggle("current", Number(row.dataset.segment) === segment);
  if (!segment) return;
  const pen = canvas.getContext("2d");
  const shade = pen.createImageData(found.width, found.height);
  for (let i = 0; i < found.values.length; i++)
    shade.data[4 * i + 3] = found.values[i] === segment ? 0 : 130;
  pen.putImageData(shade, 0, 0);
}

function hide() {
  const tip = element.querySelector(".tip");
  if (tip) tip.hidden = true;
  mark(0);
}

function point(event) {
  const overlay = element.querySelector("img.overlay");
  const found = segmentIds();
  if (!overlay || !found || !event.target.closest(".view")) return;
  const box = overlay.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * found.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * found.height);
  const inside = x >= 0 && y >= 0 && x < found.width && y < found.height;
  const segment = inside ? found.values[y * found.width + x] : 0;
  const row = element.querySelector(`.legend li[data-segment="${segment}"]`);
  if (!row) return hide();
  mark(segment);
  const tip = element.querySelector(".tip");
  tip.textContent = row.innerText;
  tip.hidden = false;
  const left = Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 4);
  const above = event.clientY - box.top - tip.offsetHeight - 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${above > 0 ? above : event.clientY - box.top + 18}px`;
}

element.addEventListener("pointermove", point);
element.addEventListener("pointerdown", point);
element.addEventListener("pointerleave", hide);
element.addEventListener("pointerover", (event) => {
  const row = event.target.closest(".legend li");
  if (row) mark(Number(row.dataset.segment));
  else if (!event.target.closest(".view")) hide();
});
element.addEventListener("focusin", (event) => {
  const row = event.target.closest(".legend li");
  if (row) mark(Number(row.dataset.segment));
});
element.addEventListener("focusout", hide);
element.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
