"use strict";
// Everything works without this; with it the page renews itself in place, and rows can be looked for.
const EVERY = 5000;
const filter = document.getElementById("filter");

function narrow() {
  const wanted = filter.value.trim().toLowerCase();
  for (const row of document.querySelectorAll("main tbody tr")) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
}

function put(page) {
  const open = new Map([...document.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const focused = document.activeElement?.closest("details[id]")?.id;
  const main = page.querySelector("main");
  for (const each of main.querySelectorAll("details[id]")) {
    if (open.has(each.id)) each.open = open.get(each.id);
  }
  document.title = page.title;
  for (const id of ["icon", "fresh"]) {
    document.getElementById(id).replaceWith(page.getElementById(id));
  }
  const state = document.getElementById("state");
  const now = page.getElementById("state");
  // Screen readers read it out, when it changes.
  if (state.textContent !== now.textContent) {
    state.textContent = now.textContent;
    state.className = now.className;
  }
  document.querySelector("main").replaceWith(main);
  if (focused) document.querySelector(`#${CSS.escape(focused)} > summary`)?.focus({ preventScroll: true });
  narrow();
}

let asking = false;
async function renew() {
  // Text that somebody is about to copy stays.
  if (asking || document.hidden || !getSelection().isCollapsed) return;
  asking = true;
  try {
    const answer = await fetch(location.pathname, {
      cache: "no-store", headers: { Accept: "text/html" }, signal: AbortSignal.timeout(EVERY),
    });
    if (!answer.ok) throw new Error(answer.statusText);
    put(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    const shown = document.getElementById("fresh");
    shown.classList.add("lost");
    if (!shown.textContent.startsWith("No answer")) shown.prepend("No answer: ");
  } finally {
    asking = false;
  }
}

filter.closest("label").hidden = false;
filter.addEventListener("input", narrow);
document.addEventListener("visibilitychange", renew);
setInterval(renew, EVERY);
