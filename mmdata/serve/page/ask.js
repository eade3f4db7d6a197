// The head of the page: the words, the other terms with their weights, and what to find.

import { byId, counted, h, icon, PLURAL, put } from "./dom.js";
import { media, show } from "./api.js";
import { mainText } from "./state.js";
import { cannot } from "./query.js";
import { preview, upload } from "./uploads.js";
import { idOf } from "./seen.js";

let words; // of the search box, as it was drawn last

/** Draw it from the state; `change(patch)` is called with what the user alters. */
export function drawAsk(state, indexes, answerers, change) {
  const main = mainText(state.terms);
  if (main?.value !== words) byId("words").value = main?.value ?? ""; // else someone may be typing
  words = main?.value;
  const others = state.terms.filter((term) => term !== main);
  const replace = (old, term) => change({ terms: state.terms.flatMap((one) => (one === old ? term ?? [] : [one])) });
  put(
    byId("terms"),
    ...others.map((term) => chip(term, replace)),
    ...(state.terms.length ? [moreWords((term) => change({ terms: [...state.terms, term] }))] : []),
  );
  put(byId("targets"), ...indexes.map((about) => target(about, state, indexes, answerers, change)));
}

function chip(term, replace) {
  const less = term.weight < 0;
  const label = labelOf(term);
  return h(
    "span",
    { className: `chip ${less ? "less" : "more"}`, role: "group", "aria-label": `${less ? "less like" : "more like"} ${label}` },
    h(
      "button",
      {
        type: "button",
        className: "sign",
        title: less ? "Less like this; press for more" : "More like this; press for less",
        "aria-label": less ? "less like this; turn to more" : "more like this; turn to less",
        onclick: () => replace(term, { ...term, weight: -term.weight }),
      },
      icon(less ? "minus" : "plus"),
    ),
    face(term),
    h("span", { className: "what", title: label }, label),
    h("input", {
      type: "number",
      className: "weight",
      min: 0.05,
      max: 100,
      step: 0.25,
      value: Math.abs(term.weight),
      title: "Weight",
      "aria-label": `Weight of ${label}`,
      onchange: (event) => {
        const weight = Math.abs(event.target.valueAsNumber);
        if (weight > 0 && weight <= 100) replace(term, { ...term, weight: less ? -weight : weight });
      },
    }),
    h("button", { type: "button", className: "away", title: "Remove", "aria-label": `Remove ${label}`, onclick: () => replace(term, null) }, icon("close")),
  );
}

function labelOf({ kind, value }) {
  if (kind === "text" || kind === "key") return value;
  const one = upload(value);
  if (!one) return `${kind === "image" ? "a picture" : "a sound"} of another tab`;
  return one.shrunk ? `${one.name} (made smaller)` : one.name;
}

function face({ kind, value }) {
  if (kind === "image" && upload(value)) return preview(upload(value));
  if (kind === "audio") return icon("sound");
  const id = kind === "key" ? idOf(value) : undefined;
  if (id === undefined) return null;
  const picture = h("img", { alt: "", width: 28, height: 28, onerror: () => picture.remove() });
  show(picture, `${media(id, "image", value)}&thumbnail=64`);
  return picture;
}

function moreWords(add) {
  const box = h("input", { type: "text", className: "also", placeholder: "and …, or -without", title: "More words; with a - in front: less like them", "aria-label": "More words; with a minus in front, less like them", maxLength: 10000 });
  const send = (event) => {
    event.preventDefault();
    const said = box.value.trim();
    const words = said.replace(/^[+-]\s*/, "");
    if (words) add({ kind: "text", value: words, weight: said.startsWith("-") ? -0.5 : 0.5 });
  };
  return h("form", { className: "more-words", onsubmit: send }, box);
}

function target(about, state, indexes, answerers, change) {
  const on = answerers.includes(about);
  const alone = indexes.filter(({ modality }) => modality === about.modality).length === 1;
  const refused = cannot(about, state.terms);
  const names = answerers.map(({ name }) => name);
  const next = on ? names.filter((name) => name !== about.name) : [...names, about.name];
  return h(
    "button",
    {
      type: "button",
      className: `target${refused ? " unable" : ""}`,
      "aria-pressed": String(on),
      title: refused ? `${about.name} takes ${about.queries.map((name) => PLURAL[name] ?? name).join(" and ")}, not ${PLURAL[refused]}` : `${about.name}: ${counted(about.rows, about.modality)}`,
      onclick: () => next.length && change({ in: next }),
    },
    PLURAL[about.modality] ?? about.modality,
    alone ? null : h("small", {}, about.name),
  );
}
