"use strict";
// Filters and sorts the images. All that is shown without this script stays as it is.
const form = document.getElementById("filter");
const shown = document.getElementById("shown");
const list = document.querySelector(".cards");
const words = document.getElementById("words");
const kind = document.getElementById("kind");
const model = document.getElementById("model");
const order = document.getElementById("order");
const number = (text) => (text === undefined ? Infinity : Number(text));
const format = (count) => count.toLocaleString("en");

const cards = [...list.children].map((card, place) => ({
  card,
  place,
  text: [...card.querySelectorAll("h3, .caption, .references li")].map((one) => one.textContent).join("\n").toLowerCase(),
  said: new Map([...card.querySelectorAll("[data-model]")].map((one) => [one.dataset.model, {
    score: number(one.dataset.score),
    confidence: number(one.dataset.confidence),
    found: (one.dataset.found ?? "").split(" ").filter(Boolean),
  }])),
}));

const fits = ({ text, said }, wanted, key, only) => {
  if (!wanted.every((word) => text.includes(word))) return false;
  if (!key) return true;
  const found = [...said].filter(([one]) => !only || one === only).flatMap(([, one]) => one.found);
  if (key === "any") return found.length > 0;
  return key === "none" ? found.length === 0 : found.includes(key);
};

const rank = (key, first, second) => ({ said, place }) => {
  const one = said.get(first);
  switch (key) {
    case "worst": return one.score;
    case "best": return -one.score;
    case "unsure": return one.confidence;
    case "gain": return said.get(second).score - one.score;
    case "loss": return one.score - said.get(second).score;
    default: return place;
  }
};

let ordered = "";
const update = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const one of cards) {
    const hidden = !fits(one, wanted, kind.value, model?.value);
    if (one.card.hidden !== hidden) one.card.hidden = hidden;
    count += !hidden;
  }
  if (order.value !== ordered) {
    ordered = order.value;
    const [key, first, second] = ordered.split("|");
    const value = rank(key, first, second);
    list.append(...cards.toSorted((a, b) => value(a) - value(b) || a.place - b.place).map((one) => one.card));
  }
  const all = `${format(cards.length)} ${cards.length === 1 ? "image" : "images"}`;
  const sorted = order.value ? `, ${order.selectedOptions[0].textContent}` : "";
  shown.textContent = (count === cards.length ? all : `${format(count)} of ${all}`) + sorted;
};

form.hidden = false;
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(update));

for (const button of document.querySelectorAll("button.show")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    form.reset();
    kind.value = button.dataset.kind;
    if (model) model.value = button.dataset.model;
    order.value = `worst|${button.dataset.model}`;
    update();
    document.getElementById("images").scrollIntoView();
    kind.focus({ preventScroll: true });
  });
}

// A link to an image that is filtered away shows it again.
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#image-']");
  if (!link) return;
  const card = document.getElementById(link.hash.slice(1));
  if (card.hidden) {
    form.reset();
    update();
  }
  card.focus({ preventScroll: true });
});
update();
