// Talking to the server: requests with a key, errors with the server's own words, patience while a model loads.

const MOST_TRIES = 30; // while a model is loading
let key = null; // is nowhere else, so that it is gone with the page

export const hasKey = () => key !== null;
export const setKey = (given) => (key = given);

class ServerError extends Error {
  constructor(response, text) {
    const body = parsed(text);
    super(body?.error?.message ?? body?.message ?? `The server answered ${response.status} ${response.statusText}.`);
    this.status = response.status;
    this.code = body?.error?.code;
    const seconds = parseFloat(response.headers.get("retry-after"));
    this.retryAfter = Number.isFinite(seconds) ? Math.max(seconds, 0.2) : null;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Browsers only say "Failed to fetch", each in other words; a cancelled request stays what it is. */
function explain(error) {
  if (error.name === "AbortError") throw error;
  throw new Error("The server cannot be reached: is it still running?", { cause: error });
}

/** What went wrong, for a person to read. */
export function inWords({ message, status, retryAfter }) {
  if (status === 401) return "The server asks for a key: rank again to enter it.";
  const wait = status === 429 && retryAfter ? ` Try again in ${retryAfter} s.` : "";
  return message.replace(/[.?]?$/, (end) => end || ".") + wait;
}

/** The body of a request to rank a job's texts with a model, or with the server's own. */
export const bodyOf = (name, { query, texts, raw, windows }) => ({
  ...(name && { model: name }), query, documents: texts, raw_scores: raw, ...(windows && { long_documents: "windows" }),
});

/** GET, or POST where there is a body. Addresses are relative, so that the page works below a proxy's prefix. */
export async function askText(path, body, signal) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) }).catch(explain);
  const text = await response.text();
  if (!response.ok) throw new ServerError(response, text);
  return { text, headers: response.headers };
}

/** The same, where the answer is JSON. */
export async function ask(path, body, signal) {
  const { text, headers } = await askText(path, body, signal);
  const answer = parsed(text);
  if (!answer) throw new Error("The server's answer is not JSON.");
  return { answer, headers };
}

/** Ask again by itself while the server says that its model is loading. */
export async function askPatiently(path, body, signal, say) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await ask(path, body, signal);
    } catch (error) {
      const passing = error.status === 503 && error.retryAfter !== null;
      if (!passing || tried === MOST_TRIES) throw error;
      const why = error.code === "loading" ? "The model is loading" : "The server is not ready";
      say(`${why}. Trying again every ${error.retryAfter} s, up to ${MOST_TRIES} times.`);
      await pause(error.retryAfter * 1000, signal);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
