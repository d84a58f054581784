"use strict";
const root = document.documentElement;
const one = (selector) => document.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// Fade what lies over the photographs.
const slider = one("#fade");
slider.addEventListener("input", () => root.style.setProperty("--fade", slider.value / 100));

// Show the images that have a class; those chosen for a class alone only while it is asked for.
const filter = one("#filter");
function show() {
  const label = filter.value;
  for (const card of all(".card")) {
    const has = card.dataset.labels.split(" ").includes(label);
    card.hidden = label ? !has : card.dataset.group === "class";
  }
  for (const group of all(".group")) group.hidden = all(".card:not([hidden])", group).length === 0;
  one("#count").textContent = `${all(".card:not([hidden])").length} images`;
}
filter.addEventListener("change", show);
show();

// Enlarge a picture; a click anywhere or Escape closes it.
const dialog = one("dialog");
for (const tile of all(".card .tile")) {
  tile.addEventListener("click", () => {
    dialog.style.cssText = tile.closest(".card").style.cssText;
    dialog.replaceChildren(tile.cloneNode(true));
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
