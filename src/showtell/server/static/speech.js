// Reading aloud, with the voices that the browser has.

import { announce } from "./announce.js";
import { LANGUAGE, text } from "./text.js";

let end = () => {};

export const canSpeak = "speechSynthesis" in globalThis && "SpeechSynthesisUtterance" in globalThis;

// Reads a text; the same button stops it. label(words) writes what the button does now.
export function speak(words, label, speaking) {
  if (speaking) return stopSpeaking();
  stopSpeaking();
  const utterance = new SpeechSynthesisUtterance(words);
  utterance.lang = LANGUAGE;
  label(text.stopReading, true);
  let over = false;
  end = () => {
    over = true;
    label(text.readAloud, false);
    end = () => {};
  };
  utterance.onend = () => !over && end();
  utterance.onerror = (event) => {
    if (over) return;
    end();
    if (!["interrupted", "canceled"].includes(event.error)) announce(text.saidNoVoice);
  };
  speechSynthesis.speak(utterance);
}

export function stopSpeaking() {
  end();
  if (canSpeak) speechSynthesis.cancel();
}
