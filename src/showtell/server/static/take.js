// Taking captions along: the clipboard, the alt attribute, the CSV file.

import { announce } from "./announce.js";
import { make } from "./elements.js";
import { text } from "./text.js";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
const COLUMNS = ["image", "rank", "caption", "score", "confidence", "alt", "needs_review", "error"];

// Returns an attribute that can be put into any HTML.
export function writeAlt(words) {
  return `alt="${words.replace(/[&<>"']/g, (sign) => ESCAPES[sign])}"`;
}

// Copies a text, and says so.
export async function copy(words) {
  const copied = (await copyByClipboard(words)) || copyBySelection(words);
  announce(copied ? text.saidCopied(words) : text.saidNotCopied);
  return copied;
}

async function copyByClipboard(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return false; // pages without HTTPS have no clipboard
  }
}

function copyBySelection(words) {
  const before = document.activeElement;
  const area = make("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
  area.value = words;
  document.body.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    before?.focus();
  }
}

// Returns the rows that `showtell caption --alt-text --format csv` writes.
export function writeCsv(pictures) {
  const rows = [COLUMNS];
  for (const { name, state, answer, problem } of pictures) {
    if (state === "failed") rows.push([name, "", "", "", "", "", "", problem.detail || problem.kind]);
    if (state !== "done") continue;
    const found = answer.captions.map((one, place) => [
      name,
      String(place + 1),
      one.caption,
      writeNumber(one.score),
      writeNumber(one.confidence),
      one.alt ?? "",
      one.needs_review == null ? "" : one.needs_review ? "True" : "False",
      "",
    ]);
    rows.push(...(found.length ? found : [[name, "", "", "", "", "", "", ""]]));
  }
  return rows.map((row) => `${row.map(quote).join(",")}\n`).join("");
}

function quote(value) {
  return /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

// A number as Python writes it, so that the file is the same to the byte; both write the fewest digits that tell it.
function writeNumber(value) {
  if (value == null) return "";
  const [digits, power] = value.toExponential().split("e");
  if (value !== 0 && (power < -4 || power >= 16)) {
    return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  const plain = String(value);
  return plain.includes(".") ? plain : `${plain}.0`;
}

export function download(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // some browsers begin late
  announce(text.saidDownloaded(name));
}
