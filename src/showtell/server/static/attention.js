// Where the model looked, as light over the picture and in words.
//
// As in `showtell caption --explain`: strengths are the logarithm of the attention in times an even share of it, on one
// scale for all words of a caption, so that a word that looked everywhere alike stays grey instead of showing its noise.

import { text } from "./text.js";

const LEAST_TOP = Math.log(2); // the scale ends at a ratio of 2 or more: what is less has little to say
const SIDE = 720; // pixels of what is painted, at most
const DIM = 0.14;
const BRIGHT = 0.66; // the greys that black and white become where it did not look
const VEIL = 0.85; // how much of the picture the strongest colour covers
const STOPS = [
  [150, 38, 98],
  [196, 56, 78],
  [236, 96, 40],
  [252, 152, 20],
  [255, 208, 52],
  [255, 240, 140],
]; // ever lighter, so that the order shows without colours, too
const SOMEWHERE = Math.log(1.5); // a map whose strongest cell has less looked at nothing in particular
const PART = 0.6; // of the strongest cell: what has as much counts for the place

// Prepares what an answer says of one caption.
export function readAttention(explanation) {
  const [rows, columns] = explanation.grid;
  const words = explanation.maps.map((map) => map.flat().map((share) => Math.log(Math.max(share * rows * columns, 1))));
  const [width, height] = explanation.size;
  const [left, top, right, bottom] = explanation.box;
  return {
    rows,
    columns,
    words,
    top: Math.max(LEAST_TOP, ...words.flat()),
    // Parts of the upright picture, because it may be shown, and sent, in another size.
    box: { left: left / width, top: top / height, right: right / width, bottom: bottom / height },
  };
}

// Says where it looked, in words.
export function describeLook(attention, word) {
  const cells = attention.words[word];
  const most = Math.max(...cells);
  if (most < SOMEWHERE) return text.lookedAllOver;
  let sum = 0;
  let across = 0;
  let down = 0;
  cells.forEach((strength, cell) => {
    if (strength < PART * most) return;
    sum += strength;
    across += strength * ((cell % attention.columns) + 0.5);
    down += strength * (Math.floor(cell / attention.columns) + 0.5);
  });
  const { left, top, right, bottom } = attention.box;
  const third = (place) => Math.min(2, Math.max(0, Math.floor(3 * place)));
  const x = third(left + ((right - left) * across) / sum / attention.columns);
  const y = third(top + ((bottom - top) * down) / sum / attention.rows);
  return text.lookedAt(text.places[y][x]);
}

let lights = { image: null }; // of the picture that was painted last

// Paints the picture in dim grey, lit where the model looked for a word.
export function paint(canvas, image, attention, word) {
  const { width, height, light } = readLights(image);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const strengths = spread(attention, word, width, height);
  const colours = colourTable();
  for (let place = 0; place < light.length; place += 1) {
    const strength = strengths[place] / attention.top;
    const bright = light[place] / 255;
    const grey = 255 * (DIM + (BRIGHT - DIM) * bright);
    const cover = VEIL * strength ** 0.75;
    // The colours keep the lights and shadows of the picture, so that what was looked at can be seen.
    const lit = 0.62 + 0.5 * bright;
    const colour = 3 * Math.min(255, Math.floor(255 * strength));
    for (let channel = 0; channel < 3; channel += 1) {
      pixels.data[4 * place + channel] = grey * (1 - cover) + colours[colour + channel] * lit * cover;
    }
    pixels.data[4 * place + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  outline(context, attention.box, width, height);
}

function readLights(image) {
  if (lights.image === image && lights.source === image.currentSrc) return lights;
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const width = Math.max(1, Math.round(image.naturalWidth * scale));
  const height = Math.max(1, Math.round(image.naturalHeight * scale));
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const light = new Uint8ClampedArray(width * height);
  for (let place = 0; place < light.length; place += 1) {
    light[place] = 0.299 * data[4 * place] + 0.587 * data[4 * place + 1] + 0.114 * data[4 * place + 2];
  }
  lights = { image, source: image.currentSrc, width, height, light };
  return lights;
}

// Between the centres of cells, values follow a smooth step, which never overshoots: no rings around a peak, no light
// where no cell has any, and none outside of what the model saw.
function spread({ rows, columns, words, box }, word, width, height) {
  const cells = words[word];
  const across = weigh(width, box.left * width, box.right * width, columns);
  const down = weigh(height, box.top * height, box.bottom * height, rows);
  const strengths = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const one = down[y];
    if (!one) continue;
    for (let x = 0; x < width; x += 1) {
      const other = across[x];
      if (!other) continue;
      const at = (row, column) => cells[row * columns + column];
      const upper = at(one.before, other.before) * (1 - other.part) + at(one.before, other.after) * other.part;
      const lower = at(one.after, other.before) * (1 - other.part) + at(one.after, other.after) * other.part;
      strengths[y * width + x] = upper * (1 - one.part) + lower * one.part;
    }
  }
  return strengths;
}

// For each pixel of one axis the two cells that it lies between, and how near it is to the second; null outside.
function weigh(pixels, begin, end, cells) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const centre = pixel + 0.5;
    if (centre < begin || centre > end) return null;
    const place = Math.min(cells - 1, Math.max(0, ((centre - begin) / Math.max(end - begin, 1e-9)) * cells - 0.5));
    const before = Math.floor(place);
    const part = place - before;
    return { before, after: Math.min(before + 1, cells - 1), part: (part + part * part * (3 - 2 * part)) / 2 };
  });
}

let table = null;

function colourTable() {
  if (table) return table;
  table = new Float32Array(3 * 256);
  for (let level = 0; level < 256; level += 1) {
    const place = (level / 255) * (STOPS.length - 1);
    const before = Math.min(STOPS.length - 2, Math.floor(place));
    for (let channel = 0; channel < 3; channel += 1) {
      const [low, high] = [STOPS[before][channel], STOPS[before + 1][channel]];
      table[3 * level + channel] = low + (high - low) * (place - before);
    }
  }
  return table;
}

// Models that see a part of the picture only: which part.
function outline(context, box, width, height) {
  const left = Math.round(box.left * width);
  const top = Math.round(box.top * height);
  const right = Math.round(box.right * width);
  const bottom = Math.round(box.bottom * height);
  if (left <= 0 && top <= 0 && right >= width && bottom >= height) return;
  context.lineWidth = 1;
  context.strokeStyle = "#000";
  context.strokeRect(left + 0.5, top + 0.5, right - left - 1, bottom - top - 1);
  context.strokeStyle = "#fff";
  context.strokeRect(left + 1.5, top + 1.5, right - left - 3, bottom - top - 3);
}
