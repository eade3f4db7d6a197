// What was found: a section an index, pictures as tiles, sounds as players, texts to read.

import { show } from "./api.js";
import { byId, clock, counted, h, icon, PLURAL, put } from "./dom.js";

/** Draw the sections; each is {about, hits, seconds, error}, with neither hits nor error while it is asked. */
export function drawHits(sections, scored, does) {
  const tools = h("div", { className: "share" }, ...jumps(sections), h("button", { type: "button", className: "plain", id: "take", onclick: does.take }, "Copy as link, curl or Python"));
  put(byId("results"), tools, ...sections.map((one) => section(one, scored, does)));
}

/** Draw one section anew; the others, and a sound that plays in them, are left alone. */
export function redraw(one, scored, does) {
  const old = byId("results").querySelector(`[data-index="${CSS.escape(one.about.name)}"]`);
  old?.replaceWith(section(one, scored, does));
}

/** Where several indexes answer, a way to each. */
function jumps(sections) {
  if (sections.length < 2) return [];
  const to = ({ about }) => byId("results").querySelector(`[data-index="${CSS.escape(about.name)}"] .hit .open`)?.focus();
  return sections.slice(1).map((one) => h("button", { type: "button", className: "plain", onclick: () => to(one) }, h("span", { className: "first" }, one.about.modality === sections[0].about.modality ? one.about.name : PLURAL[one.about.modality]), "↓"));
}

function section(one, scored, does) {
  const { about, hits, error } = one;
  const inner = error ? failed(error, does) : !hits ? waiting(about.modality) : hits.length ? grid(hits, about, scored, does) : nothing(does);
  return h(
    "section",
    { className: "answer", "data-index": about.name, "aria-label": `${PLURAL[about.modality] ?? about.modality}, ${about.name}`, "aria-busy": String(!hits && !error) },
    h("header", {}, h("h2", {}, PLURAL[about.modality] ?? about.modality), summary(one, scored)),
    inner,
  );
}

function summary({ about, hits, seconds, trip }, scored) {
  if (!hits) return h("p", { className: "note" }, about.name);
  const said = scored ? `the ${hits.length} nearest of ${counted(about.rows, about.modality)}` : `${hits.length} that pass, in no order`;
  return h("p", { className: "note figures", title: `${duration(trip)} with the way here and back` }, `${hits.length ? said : "none"} · ${duration(seconds)}`);
}

function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  return `${seconds < 0.01 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`;
}

function grid(hits, about, scored, does) {
  return h("ul", { className: `hits ${about.modality}`, onkeydown: moves }, ...hits.map((hit, place) => card(hit, place, scored, does)));
}

/** A hit; its first button opens it, and is what the arrows move between. */
export function card(hit, place, scored, does) {
  const said = hit.caption || hit.key;
  const act = (name, word, does_) => h("button", { type: "button", className: "act", title: word, "aria-label": `${word}: ${said}`, onclick: does_ }, icon(name));
  return h(
    "li",
    { className: `hit ${hit.modality}`, "data-id": hit.id },
    h("button", { type: "button", className: "open", tabIndex: place === 0 ? 0 : -1, "aria-label": `${said}${scored ? `, score ${hit.score.toFixed(3)}` : ""}`, onclick: () => does.open(hit), onfocus: roves }, hit.modality === "image" ? picture(hit) : null, h("span", { className: "caption" }, said)),
    hit.modality === "audio" && hit.media ? player(hit) : null,
    h(
      "div",
      { className: "under" },
      scored ? h("span", { className: "score figures", title: `score ${hit.score}` }, hit.score.toFixed(3)) : null,
      span(hit),
      h("span", { className: "acts" }, act("like", "More like this", () => does.like(hit)), act("plus", "Add as more", () => does.add(hit, 0.5)), act("minus", "Add as less", () => does.add(hit, -0.5))),
    ),
  );
}

function span({ start, end }) {
  return start === null || start === undefined ? null : h("span", { className: "note figures" }, `${clock(start)} to ${clock(end)}`);
}

function picture(hit) {
  if (!hit.media) return h("span", { className: "blank" }, "no picture here");
  const image = h("img", { alt: "", loading: "lazy", decoding: "async", onerror: () => image.replaceWith(h("span", { className: "blank" }, "cannot be shown")) });
  show(image, `${hit.media}&thumbnail=384`);
  return image;
}

/** The browser's own player, at the window of the hit. */
export function player(hit) {
  const audio = h("audio", { controls: true, preload: "none", "aria-label": `Sound: ${hit.caption || hit.key}` });
  show(audio, hit.media, hit.start === null || hit.start === undefined ? "" : `#t=${hit.start},${hit.end}`);
  audio.addEventListener("play", () => document.querySelectorAll("audio").forEach((other) => other !== audio && other.pause()));
  return audio;
}

function roves(event) {
  const list = event.target.closest(".hits");
  list?.querySelectorAll(".open[tabindex='0']").forEach((other) => (other.tabIndex = -1));
  event.target.tabIndex = 0;
}

/** Arrows, Home and End move between hits, over the ends of sections too. */
function moves(event) {
  if (!event.target.classList.contains("open")) return;
  const all = [...byId("results").querySelectorAll(".hit .open")];
  const here = all.indexOf(event.target);
  const next = { ArrowRight: all[here + 1], ArrowLeft: all[here - 1], ArrowDown: beside(all, here, 1), ArrowUp: beside(all, here, -1), Home: all[0], End: all.at(-1) }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  next.focus();
}

/** The button of the next row, up or down, that is nearest across. */
function beside(all, here, step) {
  const from = all[here].getBoundingClientRect();
  const centre = from.left + from.width / 2;
  let best, top;
  for (let place = here + step; all[place]; place += step) {
    const spot = all[place].getBoundingClientRect();
    if (Math.abs(spot.top - from.top) < 8) continue;
    if (top !== undefined && Math.abs(spot.top - top) >= 8) break;
    top = spot.top;
    const away = Math.abs(spot.left + spot.width / 2 - centre);
    if (!best || away < best.away) best = { button: all[place], away };
  }
  return best?.button;
}

function waiting(modality) {
  return h("ul", { className: `hits ${modality} waiting`, "aria-hidden": "true" }, ...Array.from({ length: 12 }, () => h("li", { className: `hit ${modality}` }, h("span", { className: "ghost" }))));
}

function nothing(does) {
  return h("div", { className: "empty" }, h("p", {}, does.narrowed() ? "Nothing here passes the filters." : "Nothing was found."), does.narrowed() ? h("button", { type: "button", onclick: does.widen }, "Clear the filters") : null);
}

/** A question that cannot be answered as it is will not be on the second try; without its filters it may. */
function failed(error, does) {
  const refused = error.status >= 400 && error.status < 500 && error.status !== 408;
  if (!refused) return trouble(error, does.again);
  return does.narrowed() ? trouble(error, does.widen, "Clear the filters") : trouble(error);
}

/** What went wrong, in the service's words, and what may help. */
export function trouble(error, remedy, word = "Try again") {
  return h("div", { className: "trouble", role: "alert" }, h("p", {}, error.message), remedy ? h("button", { type: "button", onclick: remedy }, word) : null);
}

/** The page before anything is asked: some of the collection, and things one might ask. */
export function drawWelcome(indexes, samples, does) {
  const totals = new Map(indexes.map((about) => [about.modality, about.rows]));
  const words = [...totals].map(([modality, rows]) => counted(rows, modality));
  const said = words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0];
  const tries = [...new Set(samples.map(({ caption }) => caption))].filter((text) => text && text.length <= 60).slice(0, 3);
  put(
    byId("results"),
    h(
      "section",
      { className: "welcome" },
      h("h1", {}, said ? `${said}.` : "Nothing to search yet."),
      said ? null : h("p", { className: "note" }, "Make one with mmdata index, then reload this page."),
      tries.length ? h("p", { className: "tries" }, "Try ", ...tries.map((text) => h("button", { type: "button", className: "pill", onclick: () => does.ask(text) }, text))) : null,
    ),
    samples.length ? h("section", { className: "answer", "aria-label": "From the collection" }, h("header", {}, h("h2", {}, "From the collection"), h("button", { type: "button", className: "plain", onclick: does.shuffle }, "Show others")), h("ul", { className: `hits ${samples[0].modality}`, onkeydown: moves }, ...samples.map((hit, place) => card(hit, place, false, does)))) : null,
  );
}
