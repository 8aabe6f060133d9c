// All English text of the page, in one place: for another language, translate this file.

export const LANGUAGE = "en"; // of the page and of the captions, for screen readers and for reading aloud

const number = new Intl.NumberFormat(LANGUAGE);
const pictures = (count) => (count === 1 ? "1 picture" : `${number.format(count)} pictures`);
const megabytes = (bytes) => `${number.format(Math.max(1, Math.floor(bytes / 1048576)))} MB`;
const percent = (share) => `${Math.round(100 * share)} %`;
const seconds = (count) => (count === 1 ? "1 second" : `${number.format(count)} seconds`);

export const text = {
  skip: "Skip to the captions",
  tagline: "Describes pictures in words.",
  intakeTitle: "Your pictures",
  intakeHint: "Choose pictures, drop them anywhere on this page, or paste them with Ctrl+V.",
  intakeHintTouch: "Choose pictures from this device, or photograph something.",
  choose: "Choose pictures",
  photograph: "Take a photograph",
  countLabel: "Captions for each new picture",
  privacy:
    "Pictures go to this service and nowhere else, and it does not keep them. Large ones are made smaller before they are sent.",
  dropHere: "Drop the pictures here",
  resultsTitle: "Captions",
  overall: "Pictures that are done",
  download: "Download as CSV",
  removeAll: "Remove all",
  removeAllTitle: "Remove all pictures and captions?",
  removeAllNote: "They are on this page only. Download the captions first if you need them.",
  keepAll: "Keep them",
  wordsHint: "Point at a word, tap it, or use the arrow keys there, to see where the model looked.",

  tally: ({ done, failed, all }) =>
    `${number.format(done)} of ${pictures(all)} described.${failed ? ` ${number.format(failed)} could not be.` : ""}`,
  model: ({ name, version, calibrated }) =>
    `Model ${name}, Showtell ${version}.${calibrated ? "" : " Nobody has measured how sure this model is, so check every caption."}`,

  cameraTitle: "Take a photograph",
  cameraTake: "Take it",
  cameraClose: "Close",
  cameraReady: "The camera is on. Nothing is sent until you take the photograph.",
  cameraStarting: "The camera is starting.",
  cameraRefused: "There is no camera that this page may use. Allow it in the browser, or choose a picture instead.",
  cameraName: (count) => `photograph-${count}.jpg`,

  keyTitle: "This service needs a key",
  keyLabel: "Key",
  keyUse: "Use this key",
  keyNote: "Whoever runs the service can give you one. It is kept until you close this tab.",
  keyWrong: "This key is not good here. Check it, and type it again.",

  tryNow: "Try now",
  tryAgain: "Try again",
  goneTitle: "The service does not answer",
  goneText:
    "Your pictures and captions stay here; do not load the page again. It is tried again by itself, until the service is back.",
  offlineTitle: "This device is offline",
  offlineText: "Your pictures and captions stay here. The page goes on when there is a network again.",

  waiting: "Waits for its turn.",
  sending: (share) => (share > 0 ? `Is being sent: ${percent(share)}.` : "Is being sent."),
  thinking: "Is being looked at.",
  later: (left) => `The service is busy. Next try in ${seconds(left)}.`,
  laterRate: (left) => `This key has had its pictures of this minute. Next try in ${seconds(left)}.`,
  paused: "Waits for the service.",
  uploadLabel: (name) => `Sending ${name}`,

  noPreview: "This browser cannot show this picture.",
  unnamed: (count) => `pasted-${count}.png`,
  captions: "Captions to choose from",
  words: "Word by word: where the model looked",
  asAlt: (alt) => `As alt text: ${alt}`,
  copyText: "Copy text",
  copyAlt: "Copy alt attribute",
  readAloud: "Read aloud",
  stopReading: "Stop reading",
  remove: "Remove",
  ofPicture: (name) => `: ${name}`,
  details: "Details",
  detailOf: (detail, request) => (request ? `${detail} (request ${request})` : detail),
  noCaption: "The model found no words for this picture.",

  // How sure the model is of a caption, and whether somebody should read it first.
  sure: (confidence) => {
    if (confidence == null) return "How sure it is, nobody knows";
    const words =
      confidence >= 0.75 ? "Very sure" : confidence >= 0.6 ? "Fairly sure" : confidence >= 0.5 ? "Half sure" : "Not sure";
    return `${words} (${percent(confidence)})`;
  },
  review: "Check it before you use it.",
  wordSure: (confidence) => {
    if (confidence == null) return "";
    if (confidence >= 0.75) return `very likely right (${percent(confidence)})`;
    if (confidence >= 0.5) return `likely right (${percent(confidence)})`;
    return confidence >= 0.25 ? `may be wrong (${percent(confidence)})` : `likely wrong (${percent(confidence)})`;
  },
  places: [
    ["the top left", "the top", "the top right"],
    ["the left", "the middle", "the right"],
    ["the bottom left", "the bottom", "the bottom right"],
  ],
  lookedAt: (place) => `looked mostly at ${place}`,
  lookedAllOver: "looked all over the picture",
  look: (word, where, sure) => `“${word}”: ${[where, sure].filter(Boolean).join("; ")}.`,

  // For screen readers only.
  saidAdded: (count) => `${pictures(count)} added.`,
  saidDone: (name, caption, sure, review) => `${name}: ${caption} ${sure}.${review ? ` ${text.review}` : ""}`,
  saidSeveral: (done, all) => `${number.format(done)} of ${pictures(all)} described.`,
  saidAllDone: (done, failed) =>
    `Finished. ${pictures(done)} described.${failed ? ` ${number.format(failed)} could not be.` : ""}`,
  saidFailed: (name, title) => `${name}: ${title}.`,
  saidBusy: (left) => `The service is busy. It is tried again in ${seconds(left)}.`,
  saidBack: "The service answers again.",
  saidCopied: (what) => `Copied: ${what}`,
  copied: "Copied",
  saidNotCopied: "The browser did not allow copying. Select the text and copy it by hand.",
  saidRemoved: (name) => `${name} removed.`,
  saidRemovedAll: "All pictures removed.",
  saidDownloaded: (name) => `${name} is being downloaded.`,
  saidNoPicture: "There is no picture in what you pasted.",
  saidNoFiles: "Nothing to describe in what you dropped. Drop pictures, not folders.",
  saidNoVoice: "The browser could not read this aloud.",
  saidChosen: (sure) => `Chosen. ${sure}.`,

  fileName: "showtell-captions.csv",
};

// What went wrong with a picture and what to do, by the kind of problem that the service names.
export const problems = {
  "too-large": (limit) => ({
    title: "This picture is too large",
    advice: limit
      ? `The service takes at most ${megabytes(limit)}. Save it smaller, or as a JPEG, and choose it again.`
      : "Save it smaller, or as a JPEG, and choose it again.",
  }),
  "unreadable-image": () => ({
    title: "This is not a picture that can be read",
    advice:
      "It may be another kind of file, damaged, or have too many pixels. Open it in a picture program, save it as a JPEG or PNG, and choose that.",
  }),
  "too-slow": () => ({
    title: "The connection is too slow for this picture",
    advice: "Try again where the network is faster.",
  }),
  "cross-site": () => ({
    title: "The service does not accept this page",
    advice: "Open the page at the service's own address.",
  }),
  "wrong-host": () => ({
    title: "The service does not know the address of this page",
    advice: "Tell whoever runs it; the command is showtell serve --allow-host NAME.",
  }),
  invalid: () => ({
    title: "The service could not use these settings",
    advice: "Try again with one caption for each picture.",
  }),
  internal: () => ({
    title: "The service made a mistake",
    advice: "Try again. If that does not help, tell whoever runs it.",
  }),
  other: () => ({
    title: "Something went wrong",
    advice: "Try again. If that does not help, tell whoever runs the service.",
  }),
};
