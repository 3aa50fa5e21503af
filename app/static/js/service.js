// The HTTP API as this page uses it. Every way to fail becomes one of three errors.

import { _, language, number } from "./words.js";

/** The server said no, and asking the same again will not help. Holds the problem document. */
export class Refused extends Error {
  constructor(problem, status) {
    super(problem.detail);
    Object.assign(this, { problem, status });
  }
}

/** Not now: the engine is away, busy or loading (503), or we ask too often (429). */
export class Away extends Error {
  constructor(problem, retryAfterSeconds) {
    super(problem.detail);
    Object.assign(this, { problem, retryAfterSeconds });
  }
}

/** No answer at all: the network or the server is gone. */
export class Unreachable extends Error {}

const AWAY = [429, 502, 503];
const DEFAULT_RETRY_SECONDS = 2;

export class Service {
  constructor(api) {
    // Absolute, because the page also shows it as a command for a terminal.
    this.api = new URL(api, location.href).href;
  }

  /** The address that answers a task. */
  url(task) {
    return `${this.api}/${task}`;
  }

  /** All models that the server is set to serve, each with its state. */
  async models(signal) {
    return (await this.#fetch("models", { signal, cache: "no-store" })).body.models;
  }

  /** Ask for one picture. Returns the answer, the server's timings and the seconds it took from here. */
  async ask(task, blob, name, options, signal) {
    const form = new FormData();
    form.append("image", blob, name);
    for (const [key, value] of Object.entries(options)) form.append(key, value);
    const started = performance.now();
    try {
      const { body, headers } = await this.#fetch(task, { method: "POST", body: form, signal });
      const timings = serverTimings(headers.get("Server-Timing"));
      return { task, ...body, body, timings, milliseconds: performance.now() - started };
    } catch (error) {
      throw error instanceof Unreachable ? await this.#whyUnreachable(error, blob) : error;
    }
  }

  async #fetch(path, options) {
    let response;
    try {
      // The page may be in another language than the browser asks for.
      const headers = { Accept: "application/json", "Accept-Language": language };
      response = await fetch(`${this.api}/${path}`, { headers, ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable("The server cannot be reached.");
    }
    const body = await json(response);
    if (response.ok && body) return { body, headers: response.headers };
    if (response.ok) throw new Unreachable("The answer was cut off.");
    throw failure(response, body);
  }

  // A server may cut the connection in the middle of a body that is too large, which looks as if it were gone.
  async #whyUnreachable(error, blob) {
    try {
      await this.models();
    } catch {
      return error;
    }
    return new Refused({
      title: _("The picture was not taken"),
      detail: _("The server closed the connection while %(size)s were being sent.", { size: size(blob.size) }),
      hint: _("It may be more than this server accepts, or it may have changed on the disk. Try a smaller one."),
      code: "connection_closed",
    }, 0);
  }
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

function failure(response, body) {
  const problem = { ...words(response.status), ...body };
  const retry = Number(response.headers.get("Retry-After"));
  if (AWAY.includes(response.status)) return new Away(problem, retry > 0 ? retry : DEFAULT_RETRY_SECONDS);
  return new Refused(problem, response.status);
}

// For answers that come from in front of the app and are no problem documents.
function words(status) {
  if (status === 413) {
    return {
      title: _("The request is too large"), detail: _("The server takes no image of this size."), hint: _("Scale it down."),
      code: "request_too_large",
    };
  }
  const code = `http_${status}`;
  if (AWAY.includes(status)) {
    return { title: _("Not available at the moment"), detail: _("The server is starting or being replaced."), code };
  }
  return { title: _("Something went wrong"), detail: _("The server answered with status %(status)s.", { status }), code };
}

// `decode;dur=3.2, queue;dur=0.1` as {decode: 3.2, queue: 0.1}.
function serverTimings(header) {
  const timings = {};
  for (const [, name, duration] of (header ?? "").matchAll(/([\w-]+)[^,]*?;\s*dur=([\d.]+)/g)) {
    timings[name] = Number(duration);
  }
  return timings;
}

function size(bytes) {
  return bytes < 1e6 ? `${number(Math.ceil(bytes / 1e3))} kB` : `${number(bytes / 1e6, 1)} MB`;
}
