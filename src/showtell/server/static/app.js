// The page: puts its parts together. What each does stands in its own file.

import { announce } from "./announce.js";
import { Card, explain } from "./card.js";
import { Connection } from "./connection.js";
import { fillTexts, find, make, say } from "./elements.js";
import { openIntake } from "./intake.js";
import { Queue } from "./queue.js";
import { stopSpeaking } from "./speech.js";
import { download, writeCsv } from "./take.js";
import { LANGUAGE, problems, text } from "./text.js";

const COUNTS = [1, 3, 5]; // captions for each picture
const USUAL_COUNT = 3;
const TOGETHER_SECONDS = 4; // several pictures are announced one by one only as slowly as this
const BUSY_SECONDS = 15; // a busy service is announced only as slowly as this

const cards = new Map(); // of each picture
const connection = new Connection(showConnection);
const queue = new Queue({ connection, options: makeOptions, changed: showPicture });

document.documentElement.lang = LANGUAGE;
fillTexts(document);
for (const count of COUNTS) {
  find("count").append(make("option", { value: count, selected: count === USUAL_COUNT }, String(count)));
}
openIntake(take);
find("trouble-retry").addEventListener("click", () => connection.connect());
find("key-form").addEventListener("submit", useKey);
find("download").addEventListener("click", () => {
  download(text.fileName, writeCsv(queue.pictures), "text/csv;charset=utf-8");
});
find("clear").addEventListener("click", () => find("sure").showModal());
find("sure").addEventListener("close", removeAll);
find("skip").addEventListener("click", (event) => {
  event.preventDefault(); // nothing for the history
  find("results").focus();
});
setInterval(() => cards.forEach((card) => card.tick()), 1000);
find("loading").remove();
find("page").hidden = false;
connection.connect();

function take(files) {
  const count = Number(find("count").value);
  for (const file of files) {
    const picture = { file, name: file.name, count, address: URL.createObjectURL(file) };
    const card = new Card(picture, {
      remove: () => remove(picture),
      retry: () => {
        card.title.focus();
        queue.retry(picture);
      },
    });
    cards.set(picture, card);
    find("cards").append(card.element);
    queue.add(picture);
  }
  announce(text.saidAdded(files.length));
  showTally();
}

function makeOptions(picture) {
  const { attention, defaults } = connection.model;
  const options = { alt_text: true, explain: attention };
  if (picture.count > 1) {
    // A beam finds as many captions as it is wide, and greedy search finds one.
    Object.assign(options, { method: "beam", count: picture.count, beam: Math.max(picture.count, defaults.beam) });
  }
  return options;
}

function showPicture(picture) {
  const card = cards.get(picture);
  picture.limit = connection.limits?.body_bytes;
  card.update(connection.state !== "ready");
  if (picture.state === "later" && Date.now() > busyTold + 1000 * BUSY_SECONDS) {
    busyTold = Date.now();
    announce(text.saidBusy(Math.max(1, Math.round((picture.until - Date.now()) / 1000))));
  }
  if (picture.state === "done" || picture.state === "failed") tellEnd(picture);
  showTally();
}

let busyTold = 0; // when it was said last
let told = 0; // when a picture was announced last

// A single picture is read out; of many, only how far they are.
function tellEnd(picture) {
  const { done, failed } = tally();
  if (queue.pictures.length > 1 && !queue.open) announce(text.saidAllDone(done, failed));
  else if (queue.pictures.length > 1) {
    if (Date.now() - told < 1000 * TOGETHER_SECONDS) return;
    announce(text.saidSeveral(done, queue.pictures.length));
  } else if (picture.state === "failed") {
    announce(text.saidFailed(picture.name, explain(picture.problem, picture.limit).title));
  } else {
    const [best] = picture.answer.captions;
    const words = best
      ? text.saidDone(picture.name, best.alt || best.caption, text.sure(best.confidence), best.needs_review)
      : text.saidFailed(picture.name, text.noCaption);
    announce(words);
  }
  told = Date.now();
}

function tally() {
  const of = (state) => queue.pictures.filter((picture) => picture.state === state).length;
  return { done: of("done"), failed: of("failed"), all: queue.pictures.length };
}

function showTally() {
  const { done, failed, all } = tally();
  document.body.classList.toggle("started", all > 0);
  find("results").hidden = find("skip").hidden = all === 0;
  say(find("tally"), text.tally({ done, failed, all }));
  const bar = find("overall");
  bar.max = Math.max(1, all);
  bar.value = done + failed;
  bar.hidden = done + failed === all;
  find("download").hidden = done + failed === 0;
}

function remove(picture) {
  const pictures = queue.pictures;
  const place = pictures.indexOf(picture);
  const next = pictures[place + 1] ?? pictures[place - 1];
  forget(picture);
  showTally();
  announce(text.saidRemoved(picture.name));
  if (next) cards.get(next).title.focus();
  else find("choose").focus();
}

function removeAll() {
  if (find("sure").returnValue !== "remove") return find("clear").focus();
  find("sure").returnValue = "";
  for (const picture of [...queue.pictures]) forget(picture);
  showTally();
  announce(text.saidRemovedAll);
  find("choose").focus();
}

function forget(picture) {
  stopSpeaking();
  queue.remove(picture);
  cards.get(picture).element.remove();
  cards.delete(picture);
  URL.revokeObjectURL(picture.address);
}

async function useKey(event) {
  event.preventDefault();
  await connection.use(find("key").value);
  if (connection.state === "ready") {
    find("key").value = "";
    find("choose").focus();
  } else find("key").focus();
}

function showConnection(state, before) {
  if (state === "ready" && before === "gone") announce(text.saidBack);
  showTrouble(state, before);
  showGate(state);
  if (connection.model) say(find("model"), text.model(connection.model));
  for (const card of cards.values()) card.update(state !== "ready");
  queue.go();
}

function showTrouble(state, before) {
  const section = find("trouble");
  const held = section.contains(document.activeElement);
  section.hidden = state !== "gone";
  if (section.hidden && held) find("choose").focus();
  if (state !== "gone") return;
  const refused = connection.problem && problems[connection.problem.kind];
  const { title, advice } = refused
    ? refused()
    : navigator.onLine
      ? { title: text.goneTitle, advice: text.goneText }
      : { title: text.offlineTitle, advice: text.offlineText };
  say(find("trouble-title"), title);
  say(find("trouble-text"), advice);
  if (before !== "gone") announce(`${title}. ${advice}`);
}

function showGate(state) {
  find("gate").hidden = state !== "key";
  find("intake").hidden = state === "key" && cards.size === 0;
  const field = find("key");
  field.setAttribute("aria-invalid", String(connection.keyRefused));
  say(find("key-note"), connection.keyRefused ? text.keyWrong : text.keyNote);
  if (state === "key") announce(connection.keyRefused ? text.keyWrong : text.keyTitle);
}
