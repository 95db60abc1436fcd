// Talking to the server: requests with a key, errors with the server's own words, patience while a model loads.

const MOST_TRIES = 30; // while a model is loading
const KEY = "mlx-rerank-key";

// The API key is kept until the tab is closed.
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

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

/** GET, or POST where there is a body. Addresses are relative, so that the page works below a proxy's prefix. */
export async function ask(path, body, signal) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) }).catch(explain);
  const text = await response.text();
  if (!response.ok) throw new ServerError(response, text);
  const answer = parsed(text);
  if (!answer) throw new Error("The server's answer is not JSON.");
  return { answer, headers: response.headers };
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
