// How pictures come in: chosen, dropped, pasted or photographed.

import { announce } from "./announce.js";
import { openCamera } from "./camera.js";
import { find } from "./elements.js";
import { text } from "./text.js";

let pasted = 0;

// take(files): is given every lot of files.
export function openIntake(take) {
  const touch = matchMedia("(pointer: coarse)").matches;
  find("intake-hint").textContent = touch ? text.intakeHintTouch : text.intakeHint;
  for (const id of ["files", "capture"]) {
    const input = find(id);
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  find("choose").addEventListener("click", () => find("files").click());
  offerPhotograph(touch, take);
  document.addEventListener("paste", (event) => paste(event, take));
  openDrop(take);
}

// A phone's own camera program is better than any page's; other devices have none that a page could open.
async function offerPhotograph(touch, take) {
  const button = find("photograph");
  if (touch) {
    button.hidden = false;
    button.addEventListener("click", () => find("capture").click());
    return;
  }
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
  if (!devices.some((device) => device.kind === "videoinput")) return;
  button.hidden = false;
  button.addEventListener("click", () => openCamera((file) => take([file])));
}

function paste(event, take) {
  if (event.target.closest?.("input, textarea")) return;
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return announce(text.saidNoPicture);
  event.preventDefault();
  // What is copied from a page or a program has the same name every time.
  take(files.map((file) => (file.name && file.name !== "image.png" ? file : rename(file))));
}

function rename(file) {
  pasted += 1;
  return new File([file], text.unnamed(pasted), { type: file.type });
}

function openDrop(take) {
  const cover = find("drop");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // every element that is crossed enters and leaves
  const end = () => {
    depth = 0;
    cover.hidden = true;
  };
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    depth += 1;
    cover.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (holdsFiles(event) && --depth <= 0) end();
  });
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault(); // otherwise the browser would leave the page and show the file
    end();
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const files = items.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
    if (files.some(Boolean)) take(files.filter(Boolean));
    else announce(text.saidNoFiles);
  });
}
