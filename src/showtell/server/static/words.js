// A caption word by word. Pointing at a word, focusing it or tapping it shows where the model looked. One stop of the
// Tab key for all words; the arrow keys go from one to the next, as in every toolbar.

import { describeLook, readAttention } from "./attention.js";
import { make, say, unseen } from "./elements.js";
import { text } from "./text.js";

// shown(attention, word) lights up the picture; hidden() turns it back. `line` is where the words about it go.
export function makeWords(caption, spellings, { line, shown, hidden }) {
  const attention = readAttention(caption.explanation);
  const abouts = caption.words.map((word, place) => ({
    where: describeLook(attention, place),
    sure: text.wordSure(word.confidence),
  }));
  let pointed = null;
  let focused = null;
  let pinned = null;

  const buttons = caption.words.map((word, place) => {
    const { where, sure } = abouts[place];
    const spelling = spellings ? spellings[place] : { word: word.word, left: false };
    const kinds = [
      "word",
      word.confidence != null && word.confidence < 0.5 && "doubtful",
      spelling.left && "left",
    ].filter(Boolean);
    return make(
      "button",
      {
        type: "button",
        class: kinds.join(" "),
        tabindex: place ? "-1" : "0",
        "aria-pressed": "false",
        onpointerenter: (event) => event.pointerType !== "touch" && point(place),
        onfocus: () => focus(place),
        onblur: () => focus(null),
        onclick: () => pin(place),
      },
      spelling.word,
      unseen(`: ${[where, sure].filter(Boolean).join("; ")}`),
    );
  });
  const toolbar = make("div", {
    class: "words",
    role: "toolbar",
    "aria-label": text.words,
    onpointerleave: () => point(null), // not of a word: the light would flicker from one to the next
    onkeydown: press,
  });
  buttons.forEach((button, place) => toolbar.append(place ? " " : "", button));

  function point(place) {
    pointed = place;
    update();
  }

  function focus(place) {
    focused = place;
    if (place != null) buttons.forEach((button, one) => (button.tabIndex = one === place ? 0 : -1));
    update();
  }

  function pin(place) {
    pinned = pinned === place ? null : place;
    focused = pinned; // a second tap turns the light off, though the focus stays
    update();
  }

  function press(event) {
    const place = buttons.indexOf(event.target);
    const steps = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: buttons.length - 1 };
    if (event.key === "Escape") {
      pointed = focused = pinned = null;
      update();
    } else if (event.key in steps && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      buttons[(steps[event.key] + buttons.length) % buttons.length].focus();
    }
  }

  function update() {
    const place = pointed ?? focused ?? pinned;
    buttons.forEach((button, one) => {
      button.classList.toggle("lit", one === place);
      button.setAttribute("aria-pressed", String(one === pinned));
    });
    if (place == null) {
      hidden();
      say(line, text.wordsHint);
    } else {
      shown(attention, place);
      const { where, sure } = abouts[place];
      say(line, text.look(caption.words[place].word, where, sure));
    }
  }

  update();
  return toolbar;
}

// How the words of a caption are written in its alt text, with a capital and a full stop, and which of them it leaves
// out, as "a picture of". Nothing where the alt text has other words.
export function spellWords(caption) {
  const plain = caption.words.map((word) => word.word);
  const written = (caption.alt ?? "").split(" ");
  const bare = (word) => word.toLowerCase().replace(/[.!?…。]+$/, "");
  for (let begin = 0; begin + written.length <= plain.length; begin += 1) {
    if (!written.every((word, place) => bare(word) === bare(plain[begin + place]))) continue;
    return plain.map((word, place) => written[place - begin] ?? word).map((word, place) => ({
      word,
      left: place < begin || place >= begin + written.length,
    }));
  }
  return null;
}
