// What htmx has no attribute for: a file that is dropped, a job that goes on, a text that is copied.
// The page works without all of it.
"use strict";

// --- files
const areaOf = (event) => event.target instanceof Element && event.target.closest(".drop");

document.addEventListener("dragover", (event) => {
  const area = areaOf(event);
  if (!area) return;
  event.preventDefault();
  area.classList.add("over");
});

document.addEventListener("dragleave", (event) => {
  const area = areaOf(event);
  if (area && !area.contains(event.relatedTarget)) area.classList.remove("over");
});

document.addEventListener("drop", (event) => {
  const area = areaOf(event);
  if (!area) return;
  event.preventDefault();
  area.classList.remove("over");
  const input = area.querySelector('input[type="file"]');
  if (!input || !event.dataTransfer.files.length) return;
  input.files = event.dataTransfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});

document.addEventListener("change", (event) => {
  const area = areaOf(event);
  if (area && event.target.type === "file") area.classList.toggle("has", event.target.files.length > 0);
});

// --- jobs: each event is the job as it is now
const follow = (section) => {
  const source = new EventSource(section.dataset.events);
  const part = (name) => section.querySelector(`[data-${name}]`);
  const again = () => {
    source.close();
    if (section.isConnected) htmx.ajax("GET", section.dataset.page, { target: "#job", swap: "innerHTML" });
  };
  const show = (event) => {
    if (!section.isConnected) return source.close();
    const job = JSON.parse(event.data);
    const known = job.progress || {};
    const state = job.state === "queued" ? "Waiting for a worker" : job.attempt > 1 ? `Working (worker ${job.attempt})` : "Working";
    if (part("state").textContent !== state) part("state").textContent = state;
    part("phase").textContent = [known.phase, known.message].filter(Boolean).join(": ");
    const bar = part("bar");
    if (typeof known.fraction === "number") bar.value = known.fraction;
    else bar.removeAttribute("value");
  };
  source.addEventListener("state", show);
  source.addEventListener("progress", show);
  source.addEventListener("end", again);
  source.addEventListener("error", () => {
    // a connection that broke is made again by the browser; one that was refused is not
    if (source.readyState === EventSource.CLOSED) setTimeout(again, 2000);
  });
  const began = Date.now() - 1000 * Number(section.dataset.age);
  const clock = setInterval(() => {
    if (!section.isConnected) return clearInterval(clock);
    part("clock").textContent = `${Math.round((Date.now() - began) / 1000)} s`;
  }, 1000);
};

document.addEventListener("htmx:load", (event) => {
  const root = event.detail.elt;
  if (root.matches("[data-events]")) follow(root);
  root.querySelectorAll("[data-events]").forEach(follow);
});

// --- what went wrong is put where it is read next, and the field that it is about is marked
const fieldOf = (path) => {
  const last = path[path.length - 1];
  const names = { W: "tensor", tensors: "tensor", slope: "low" };
  return path.length ? document.getElementById(names[last] || last) : null;
};

document.addEventListener("htmx:afterSwap", (event) => {
  const target = event.detail.target;
  if (target.id !== "said" || !target.firstElementChild) return;
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: "nearest" });
  const path = (target.firstElementChild.dataset.field || "").split(".");
  const wrong = fieldOf(path);
  if (wrong) wrong.setAttribute("aria-invalid", "true");
});

document.addEventListener("htmx:beforeRequest", (event) => {
  const said = document.getElementById("said");
  if (!said || event.detail.requestConfig.verb === "get") return;
  said.replaceChildren();
  document.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
});

// --- copying
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element && event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = before), 1500);
});
