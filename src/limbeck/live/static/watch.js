// Asks for what has changed and puts it in its place; without this script the page is read anew every few seconds.
"use strict";

const PERIOD = 1500;
const versions = {};
const hidden = {};
let paused = false;
let asking = null;
let clock = 0;

const at = (id) => document.getElementById(id);

function put(id, { html, version }) {
  versions[id] = version;
  const place = at(id);
  const held = document.activeElement;
  const key = place.contains(held) ? selector(held) : null;
  place.innerHTML = html;
  if (key) place.querySelector(key)?.focus({ preventScroll: true });
  if (id === "curves") showLines();
}

// The same element in the new text, so that who goes by key keeps the place.
function selector(element) {
  if (element.dataset.look) return `[data-look="${element.dataset.look}"]`;
  const plot = element.closest("[data-plot]");
  if (plot && element.dataset.role) return `[data-plot="${plot.dataset.plot}"] [data-role="${element.dataset.role}"]`;
  return element.getAttribute("tabindex") === "0" ? `[tabindex="0"]` : null;
}

// Lines and marks are known by their colour, the same as in the legend.
function showLines() {
  for (const figure of document.querySelectorAll("[data-plot]")) {
    const off = (hidden[figure.dataset.plot] ??= new Set());
    for (const button of figure.querySelectorAll(".toggle")) {
      const role = button.dataset.role;
      button.setAttribute("aria-pressed", String(!off.has(role)));
      for (const mark of figure.querySelectorAll(`.plot :is(path, use):is([stroke="var(--${role})"], [fill="var(--${role})"])`)) {
        mark.classList.toggle("gone", off.has(role));
      }
    }
  }
}

async function ask() {
  clearTimeout(clock);
  asking?.abort();
  const mine = (asking = new AbortController());
  let wrong = "";
  try {
    const wanted = new URLSearchParams(location.search);
    wanted.set("known", Object.values(versions).join(","));
    const answer = await fetch(`/parts?${wanted}`, { signal: mine.signal });
    const told = await answer.json();
    if (answer.ok) {
      for (const [id, part] of Object.entries(told)) put(id, part);
      at("fresh").textContent = at("fresh").dataset.fresh.replace("%", new Date().toLocaleTimeString(document.documentElement.lang));
    } else wrong = told.error ?? at("lost").dataset.lost;
  } catch {
    if (mine.signal.aborted) return;
    wrong = at("lost").dataset.lost;
  }
  if (at("lost").textContent !== wrong) at("lost").textContent = wrong;
  if (asking === mine && !paused && !document.hidden) clock = setTimeout(ask, PERIOD);
}

function pause() {
  paused = !paused;
  at("pause").textContent = paused ? at("pause").dataset.goOn : at("pause").dataset.pause;
  if (!paused) return ask();
  clearTimeout(clock);
  asking?.abort();
  at("fresh").textContent = at("fresh").dataset.paused;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-look]");
  const toggle = event.target.closest(".toggle");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    history.replaceState(null, "", link.getAttribute("href"));
    ask();
  } else if (toggle) {
    const off = hidden[toggle.closest("[data-plot]").dataset.plot];
    if (!off.delete(toggle.dataset.role)) off.add(toggle.dataset.role);
    showLines();
  }
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) ask();
});
at("pause").addEventListener("click", pause);
document.querySelector(".control").hidden = false;
showLines();
ask();
