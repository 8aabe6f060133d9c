// The service's API. Paths are relative, so that the page also works below a path of another site.

const PREFIX = "urn:problem-type:showtell:";
const MODELS_SECONDS = 15;
const SILENT_SECONDS = 75; // without a byte in either direction: longer than the service lets an answer take
const AGAIN_SECONDS = 3; // where a busy service does not say when

// What a proxy in between may answer in the service's place, which names no kind.
const KINDS = { 401: "unauthorized", 408: "too-slow", 413: "too-large", 429: "too-many-requests", 500: "internal" };

// Why there is no answer. Its kind is the service's own word for it, or "unreachable".
export class Problem extends Error {
  constructor(kind, { detail = "", request = "", retryAfter = 0 } = {}) {
    super(detail || kind);
    this.kind = kind;
    this.detail = detail;
    this.request = request;
    this.retryAfter = retryAfter;
  }

  // Whether the same picture may well get its captions a little later.
  get passes() {
    return ["busy", "late", "not-ready", "too-many-requests"].includes(this.kind);
  }
}

function authorize(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function readProblem(status, body, retryAfter) {
  let found = {};
  try {
    found = JSON.parse(body);
  } catch {
    // Not the service's own words.
  }
  const named = typeof found?.type === "string" && found.type.startsWith(PREFIX);
  const kind = named ? found.type.slice(PREFIX.length) : (KINDS[status] ?? (status > 500 ? "unreachable" : "other"));
  const again = Number(retryAfter) > 0 ? Number(retryAfter) : AGAIN_SECONDS;
  return new Problem(kind, {
    detail: named ? String(found.detail) : `HTTP ${status}`,
    request: named ? String(found.request_id) : "",
    retryAfter: again,
  });
}

// Returns what captions here and within which limits.
export async function readModels(key) {
  let response, body;
  try {
    response = await fetch("v1/models", {
      headers: authorize(key),
      cache: "no-store",
      signal: AbortSignal.timeout(1000 * MODELS_SECONDS),
    });
    body = await response.text();
  } catch {
    throw new Problem("unreachable");
  }
  if (!response.ok) throw readProblem(response.status, body, response.headers.get("Retry-After"));
  try {
    return JSON.parse(body);
  } catch {
    throw new Problem("unreachable"); // a page of some network in between
  }
}

// Sends one picture; returns its `ImageAnswer`. XMLHttpRequest, because fetch does not tell how much was sent.
export function caption(picture, name, options, { key, signal, sent = () => {} }) {
  const form = new FormData();
  form.append("image", picture, name);
  for (const [option, value] of Object.entries(options)) form.append(option, String(value));
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let watch = 0;
    const listen = () => {
      clearTimeout(watch);
      watch = setTimeout(() => request.abort(), 1000 * SILENT_SECONDS);
    };
    const stop = () => request.abort();
    const end = (settle, value) => {
      clearTimeout(watch);
      signal.removeEventListener("abort", stop);
      settle(value);
    };
    request.open("POST", "v1/captions");
    for (const [header, value] of Object.entries(authorize(key))) request.setRequestHeader(header, value);
    request.upload.onprogress = (event) => {
      listen();
      sent(event.total ? event.loaded / event.total : 0);
    };
    request.upload.onload = () => sent(1);
    request.onprogress = listen;
    request.onerror = () => end(reject, new Problem("unreachable"));
    request.onabort = () => end(reject, signal.aborted ? signal.reason : new Problem("unreachable"));
    request.onload = () => {
      const problem = () => readProblem(request.status, request.responseText, request.getResponseHeader("Retry-After"));
      if (request.status !== 200) return end(reject, problem());
      try {
        const [answer] = JSON.parse(request.responseText).images;
        end(resolve, answer);
      } catch {
        end(reject, new Problem("unreachable")); // cut off, or a page of some network in between
      }
    };
    if (signal.aborted) return end(reject, signal.reason);
    signal.addEventListener("abort", stop);
    listen();
    request.send(form);
  });
}
