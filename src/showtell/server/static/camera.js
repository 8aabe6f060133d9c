// A photograph with the camera of a computer. The camera is off as soon as the dialog is closed, however that happens.

import { find, say } from "./elements.js";
import { text } from "./text.js";

let stream = null;
let taken = 0;
let give = () => {};

export async function openCamera(take) {
  const dialog = find("camera");
  give = take;
  find("camera-take").disabled = true;
  say(find("camera-note"), text.cameraStarting);
  dialog.onclose = stop;
  find("camera-take").onclick = photograph;
  find("camera-close").onclick = () => dialog.close();
  dialog.showModal();
  find("camera-close").focus();
  try {
    const found = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
    if (!dialog.open) return found.getTracks().forEach((track) => track.stop());
    stream = found;
    find("camera-view").srcObject = stream;
    await find("camera-view").play();
    say(find("camera-note"), text.cameraReady);
    find("camera-take").disabled = false;
    find("camera-take").focus();
  } catch {
    stop();
    if (dialog.open) say(find("camera-note"), text.cameraRefused);
  }
}

function photograph() {
  const view = find("camera-view");
  const canvas = document.createElement("canvas");
  canvas.width = view.videoWidth;
  canvas.height = view.videoHeight;
  canvas.getContext("2d").drawImage(view, 0, 0);
  canvas.toBlob((blob) => {
    taken += 1;
    if (blob) give(new File([blob], text.cameraName(taken), { type: "image/jpeg" }));
  }, "image/jpeg", 0.92);
  find("camera").close();
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("camera-view").srcObject = null;
}
