// The service. An API key, where one is asked for, lives in this tab's sessionStorage and goes only into a header.

const KEY = "mmdata-key";
let unlock = null;

/** An answer that is an error: `status` is 0 when there was no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** `ask` is called when the service wants a key; it gives a promise of one. */
export function whenLocked(ask) {
  unlock = ask;
}

export const apiKey = () => sessionStorage.getItem(KEY);

async function call(path, options, again = true) {
  const key = apiKey();
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service does not answer. Is mmdata serve still running?");
  }
  if (response.status === 401 && again && unlock) {
    if (apiKey() === key) sessionStorage.setItem(KEY, await unlock(key !== null));
    return call(path, options);
  }
  if (!response.ok) throw new Refused(response.status, await complaint(response));
  return response;
}

async function complaint(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The service answered ${response.status} ${response.statusText}`;
  }
}

const json = async (path, options = {}) => (await call(path, options)).json();

export const indexes = () => json("/indexes");

export const search = (body, signal) =>
  json("/search", { method: "POST", body: JSON.stringify(body), signal, headers: { "Content-Type": "application/json" } });

/** A sample by its number; with a key, refused when another sample has the number by now. */
export const sample = (id, key, signal) => json(`/samples/${id}${key === undefined ? "" : `?${named(key)}`}`, { signal });

export const media = (id, modality, key) => `/samples/${id}/${modality}?${named(key)}`;

const named = (key) => `key=${encodeURIComponent(key)}`;

export const map = (index, field) =>
  json(`/indexes/${encodeURIComponent(index)}/map${field ? `?field=${encodeURIComponent(field)}` : ""}`);

/** The first bytes of a part as text. */
export async function beginning(url, bytes) {
  return (await call(url, { headers: { Range: `bytes=0-${bytes - 1}` } })).text();
}

const arriving = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => fetchInto(entry.target)),
  { rootMargin: "300px" },
);

/** Let an <img> or <audio> show a part. With a key its bytes are fetched when it comes into view: a tag sends no key. */
export function show(element, url, fragment = "") {
  if (!apiKey()) {
    element.src = url + fragment;
    return;
  }
  element.dataset.url = url;
  element.dataset.fragment = fragment;
  arriving.observe(element);
}

async function fetchInto(element) {
  arriving.unobserve(element);
  try {
    const blob = await (await call(element.dataset.url, {})).blob();
    element.src = URL.createObjectURL(blob) + element.dataset.fragment;
    if (element instanceof HTMLImageElement) element.onload = () => URL.revokeObjectURL(element.src);
  } catch {
    element.dispatchEvent(new Event("error"));
  }
}
