// What htmx has no attribute for: a file that is dropped, a text that is copied. The page works without either.
"use strict";

document.addEventListener("dragover", (event) => {
  const area = event.target.closest(".drop");
  if (area) {
    event.preventDefault();
    area.classList.add("over");
  }
});

document.addEventListener("dragleave", (event) => {
  const area = event.target.closest(".drop");
  if (area) area.classList.remove("over");
});

document.addEventListener("drop", (event) => {
  const area = event.target.closest(".drop");
  if (!area) return;
  event.preventDefault();
  area.classList.remove("over");
  const input = area.querySelector('input[type="file"]');
  if (input && event.dataTransfer.files.length) {
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
  const said = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = said), 1500);
});
