// One picture on the page: how far it is, its captions, and what can be done with them.

import { paint } from "./attention.js";
import { make, say, unseen } from "./elements.js";
import { canSpeak, speak, stopSpeaking } from "./speech.js";
import { copy, writeAlt } from "./take.js";
import { problems, text } from "./text.js";
import { makeWords, spellWords } from "./words.js";
import { announce } from "./announce.js";

const COPIED_SECONDS = 2;
const FINAL = ["too-large", "unreadable-image"]; // the same file would fail again
let count = 0;

export class Card {
  // remove() and retry() act on its picture.
  constructor(picture, { remove, retry }) {
    this.picture = picture;
    this.#retry = retry;
    const id = `picture-${(count += 1)}`;
    this.title = make("h3", { id, tabindex: "-1" }, picture.name);
    this.image = make("img", { alt: picture.name, src: picture.address, decoding: "async" });
    this.image.onerror = () => this.#hidePreview();
    this.canvas = make("canvas", { "aria-hidden": "true", hidden: true });
    this.frame = make("div", { class: "frame" }, this.image, this.canvas);
    this.body = make("div", { class: "body" });
    const dismiss = make("button", { type: "button", class: "quiet", onclick: remove }, text.remove, this.#which());
    this.foot = make("div", { class: "foot" }, dismiss);
    this.element = make(
      "li",
      {},
      make(
        "article",
        { "aria-labelledby": id },
        this.title,
        make("div", { class: "columns" }, this.frame, make("div", { class: "side" }, this.body, this.foot)),
      ),
    );
  }

  #retry;
  #state = "";

  // Which picture a button belongs to, for those who hear the button only.
  #which() {
    return unseen(text.ofPicture(this.picture.name));
  }

  #hidePreview() {
    this.frame.replaceChildren(make("p", { class: "none" }, text.noPreview));
    this.image = null;
  }

  // Shows how far the picture is.
  update(paused) {
    const { picture } = this;
    const state = paused && picture.state === "waiting" ? "paused" : picture.state;
    if (state !== this.#state) {
      this.#state = state;
      const build = { sending: this.#sending, later: this.#later, failed: this.#failed, done: this.#done }[state];
      const held = this.body.contains(document.activeElement);
      this.element.dataset.state = state;
      this.body.replaceChildren(...(build ? build.call(this) : [this.#status(text[state])]));
      if (held) this.title.focus(); // a button that is gone must not take the focus with it
    }
    if (state === "sending") {
      say(this.status, text.sending(picture.share));
      this.bar.value = picture.share;
    }
    if (state === "later") this.tick();
  }

  #status(words) {
    return (this.status = make("p", { class: "status" }, words));
  }

  #sending() {
    this.bar = make("progress", { max: "1", value: "0", "aria-label": text.uploadLabel(this.picture.name) });
    return [this.#status(""), this.bar];
  }

  #later() {
    const again = make("button", { type: "button", onclick: this.#retry }, text.tryNow, this.#which());
    return [this.#status(""), make("div", { class: "actions" }, again)];
  }

  // Counts down while the service is busy.
  tick() {
    if (this.#state !== "later") return;
    const left = Math.max(1, Math.ceil((this.picture.until - Date.now()) / 1000));
    say(this.status, this.picture.problem.kind === "too-many-requests" ? text.laterRate(left) : text.later(left));
  }

  #failed() {
    const { problem, limit } = this.picture;
    const { title, advice } = explain(problem, limit);
    const again =
      !FINAL.includes(problem.kind) &&
      make("button", { type: "button", onclick: this.#retry }, text.tryAgain, this.#which());
    return [
      make("p", { class: "failure" }, title),
      make("p", {}, advice),
      problem.detail &&
        make("details", {}, make("summary", {}, text.details), make("p", {}, text.detailOf(problem.detail, problem.request))),
      again && make("div", { class: "actions" }, again),
    ].filter(Boolean);
  }

  #done() {
    const { captions } = this.picture.answer;
    if (!captions.length) return [this.#status(text.noCaption)];
    const chosen = make("div", { class: "chosen" });
    this.#choose(captions[0], chosen);
    if (captions.length === 1) return [chosen];
    const name = `${this.title.id}-captions`;
    const choices = captions.map((caption, place) =>
      make(
        "label",
        {},
        make("input", {
          type: "radio",
          name,
          checked: place === 0,
          onchange: () => {
            this.#choose(caption, chosen);
            announce(text.saidChosen(text.sure(caption.confidence)));
          },
        }),
        make("span", {}, caption.alt || caption.caption, " ", make("small", {}, text.sure(caption.confidence))),
      ),
    );
    return [chosen, make("fieldset", {}, make("legend", {}, text.captions), ...choices)];
  }

  // Makes one caption the one that is shown large and acted on.
  #choose(caption, place) {
    stopSpeaking();
    this.#hideLook();
    const sentence = caption.alt || caption.caption;
    if (this.image) this.image.alt = sentence;
    const looked = caption.explanation && caption.explanation.maps.length === caption.words.length;
    const line = make("p", { class: "look" });
    const parts = [];
    if (looked && caption.words.length) {
      const spellings = spellWords(caption);
      parts.push(make("p", { class: "unseen" }, sentence));
      parts.push(
        makeWords(caption, spellings, {
          line,
          shown: (attention, word) => this.#showLook(attention, word),
          hidden: () => this.#hideLook(),
        }),
      );
      if (!spellings && caption.alt) parts.push(make("p", { "aria-hidden": "true" }, text.asAlt(caption.alt)));
      parts.push(line);
    } else {
      parts.push(make("p", { class: "words" }, sentence));
    }
    const review = caption.needs_review && make("strong", { class: "review" }, text.review);
    parts.push(make("p", { class: "sure" }, `${text.sure(caption.confidence)}. `, review));
    parts.push(this.#actions(sentence));
    place.replaceChildren(...parts);
  }

  #actions(sentence) {
    const button = (label, act) => {
      const name = make("span", {}, label);
      const one = make("button", { type: "button", onclick: () => act(name, one) }, name, this.#which());
      return one;
    };
    const copying = (label, words) =>
      button(label, async (name) => {
        if (!(await copy(words))) return;
        say(name, text.copied);
        setTimeout(() => say(name, label), 1000 * COPIED_SECONDS);
      });
    let speaking = false;
    const reading = (name) => (words, now) => {
      speaking = now;
      say(name, words);
    };
    return make(
      "div",
      { class: "actions" },
      copying(text.copyText, sentence),
      copying(text.copyAlt, writeAlt(sentence)),
      canSpeak && button(text.readAloud, (name) => speak(sentence, reading(name), speaking)),
    );
  }

  #showLook(attention, word) {
    if (!this.image?.complete || !this.image.naturalWidth) return;
    paint(this.canvas, this.image, attention, word);
    this.canvas.hidden = false;
  }

  #hideLook() {
    this.canvas.hidden = true;
  }
}

// Returns what went wrong and what to do, in plain words.
export function explain(problem, limit) {
  return (problems[problem.kind] ?? problems.other)(limit);
}
