// One sample at its full size, with all that is known of it.

import { beginning, Refused, sample, show } from "./api.js";
import { byId, clock, h, icon, PLURAL, put, shown } from "./dom.js";
import { player, trouble } from "./hits.js";

const READ = 20_000; // bytes of a text part that are shown
let asked = null;

/** Fill and open the drawer with a sample; `scores` are [{index, rank, score}], `hit` what a search said, if it did. */
export async function openDrawer(id, hit, scores, does) {
  const drawer = byId("drawer");
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  if (hit) fill({ id, key: hit.key, caption: hit.caption, metadata: hit.metadata ?? {}, parts: {} }, hit, scores, does);
  else put(drawer, tools(null, does), h("p", { className: "note" }, "Loading …"));
  if (!drawer.open) drawer.showModal();
  try {
    const found = await sample(id, hit?.key, signal);
    if (!signal.aborted) fill(found, hit, scores, does);
  } catch (error) {
    if (error instanceof Refused && !hit) put(drawer, tools(null, does), trouble(error));
    else if (error instanceof Refused && hit.media) drawer.append(trouble(error));
    else if (!(error instanceof Refused) && error.name !== "AbortError") throw error;
  }
}

export function closeDrawer() {
  asked?.abort();
  if (byId("drawer").open) byId("drawer").close();
  put(byId("drawer"));
}

function fill(one, hit, scores, does) {
  const focused = byId("drawer").contains(document.activeElement) ? document.activeElement.dataset.name : undefined;
  const parts = Object.entries(one.parts).sort(([a], [b]) => rank(a, hit) - rank(b, hit));
  byId("drawer").setAttribute("aria-label", one.caption || one.key);
  put(
    byId("drawer"),
    tools(one, does),
    h("div", { className: "media" }, ...parts.map(([modality, part]) => media(modality, part, one, hit))),
    one.caption ? h("p", { className: "caption" }, one.caption) : null,
    h("div", { className: "does" }, ...["like", "more", "less"].map((name) => action(name, one, does))),
    scores.length ? block("Scores", facts(scores.map(({ index, rank: place, score }) => [index, `${score.toFixed(4)}, hit ${place}`]))) : null,
    Object.keys(one.metadata).length ? block("Metadata", facts(Object.entries(one.metadata).map(([name, value]) => [name, shown(value)]))) : null,
    block("Sample", facts([["key", one.key], ["id", one.id], ...(hit?.row === undefined ? [] : [["row", hit.row]]), ...(hit?.start ?? null) === null ? [] : [["from", `${clock(hit.start)} to ${clock(hit.end)}`]], ...parts.map(([modality, part]) => [modality, `${part.suffix}, ${size(part.size)}, ${part.type}`])])),
  );
  byId("drawer").querySelector(`[data-name="${focused ?? "close"}"]`)?.focus();
}

const rank = (modality, hit) => (modality === hit?.modality ? -1 : ["image", "audio", "text"].indexOf(modality));

function tools(one, does) {
  const button = (name, word, act) => h("button", { type: "button", className: "quiet", title: word, "aria-label": word, "data-name": name, autofocus: name === "close", onclick: act }, icon(name));
  return h("div", { className: "drawer-tools" }, button("left", "The one before (left arrow)", () => does.step(-1)), button("right", "The next one (right arrow)", () => does.step(1)), h("span", {}), button("close", "Close (Esc)", does.close));
}

function media(modality, part, one, hit) {
  if (modality === "image") {
    const shows = part.type === "image/tiff" || part.type === "image/heic" ? `${part.url}&thumbnail=1024` : part.url;
    const image = h("img", { alt: one.caption || one.key, onerror: () => image.replaceWith(h("span", { className: "blank" }, "cannot be shown")) });
    show(image, shows);
    return image;
  }
  if (modality === "audio") return player({ ...one, ...(hit?.modality === "audio" ? { start: hit.start, end: hit.end } : {}), media: part.url });
  const text = h("p", { className: "reading" });
  beginning(part.url, READ)
    .then((words) => (words.trim() === one.caption.trim() ? text.remove() : (text.textContent = part.size > READ ? `${words} …` : words)))
    .catch(() => text.remove());
  return text;
}

function action(name, one, does) {
  const [word, act] = { like: ["More like this", () => does.like(one)], more: ["More", () => does.add(one, 0.5)], less: ["Less", () => does.add(one, -0.5)] }[name];
  return h("button", { type: "button", "data-name": name, autofocus: name === "close", onclick: act }, icon({ like: "like", more: "plus", less: "minus" }[name]), word);
}

const block = (title, inner) => h("section", {}, h("h3", {}, title), inner);

const facts = (pairs) => h("dl", {}, ...pairs.flatMap(([name, value]) => [h("dt", {}, PLURAL[name] ? name : shown(name)), h("dd", {}, shown(value))]));

const size = (bytes) => (bytes < 1000 ? `${bytes} bytes` : bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
