// Asking the indexes, each by itself, so that one that fails or is slow holds up no other.

import * as api from "./api.js";
import { byId, counted, PLURAL, say, tell } from "./dom.js";
import { drawHits, drawWelcome, redraw } from "./hits.js";
import { answering, body, cannot, usable } from "./query.js";
import { remember } from "./seen.js";
import { NOTHING } from "./state.js";

const WELCOME = 18; // samples that are shown before anything is asked
const KEPT = 30; // answers that going back finds again

let asked = null; // the question that the sections answer
let sections = [];
let scored = false; // false where only filters were given
let running = new AbortController();
let welcomed = [];
const answers = new Map();

/** Answer what a state asks, and draw it; `then` is called when hits have come. */
export function answer(state, indexes, does, then) {
  const { there, lost } = usable(state.terms);
  if (lost) say("This link was made with a picture or a sound of another tab. Please add the file again.");
  const question = indexes.length && (there.length || (state.where.length && !lost)) ? JSON.stringify([{ ...state, view: 0, colour: 0, open: 0 }]) : "";
  if (question === asked) return;
  running.abort();
  running = new AbortController();
  asked = question;
  scored = there.length > 0;
  sections = question ? answering(state, indexes).map((about) => ({ about, ...answers.get(keyOf(state, about)) })) : [];
  if (!question) return welcome(indexes, does);
  drawHits(sections, scored, does);
  announce(then);
  for (const section of sections) if (!section.hits) ask(section, state, there, does, then);
}

/** Ask again, whatever was answered. */
export function forget() {
  asked = null;
}

/** What is on the page, or was found in one index. */
export function shownHits(index) {
  if (!sections.length && index === undefined) return welcomed;
  return sections.filter(({ about }) => index === undefined || about.name === index).flatMap(({ hits }) => hits ?? []);
}

/** [{index, rank, score}] of a sample. */
export function scoresOf(id) {
  const of = ({ about, hits }) => (hits ?? []).flatMap((hit, place) => (hit.id === id ? [{ index: about.name, rank: place + 1, score: hit.score }] : []));
  return scored ? sections.flatMap(of) : [];
}

const keyOf = (state, about) => JSON.stringify(body(state, `${about.name} ${about.generation}`, about, (one) => one.id));

async function ask(section, state, terms, does, then) {
  const { about } = section;
  const { signal } = running;
  const key = keyOf(state, about);
  const since = performance.now();
  try {
    const refused = cannot(about, terms);
    if (refused) throw new api.Refused(409, `${about.name} cannot be asked with ${PLURAL[refused]}: nothing takes them into its space (mmdata align).`);
    const { answers: [{ hits }], seconds } = await api.search(body(state, about.name, about), signal);
    hits.forEach((hit) => remember(hit.key, hit.id));
    answers.set(key, { hits, seconds, trip: (performance.now() - since) / 1000 });
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
    Object.assign(section, answers.get(key));
  } catch (error) {
    section.error = error;
  }
  if (signal.aborted) return;
  redraw(section, scored, does);
  announce(then);
}

function announce(then) {
  const waiting = sections.some(({ hits, error }) => !hits && !error);
  byId("progress").hidden = !waiting;
  tell(waiting ? "Searching" : sections.map(({ about, hits, error }) => (error ? `${about.name}: ${error.message}` : counted(hits.length, about.modality))).join(", "));
  if (sections.some(({ hits }) => hits)) then();
}

async function welcome(indexes, does) {
  const others = async () => {
    welcomed = await some(indexes);
    if (!sections.length) drawWelcome(indexes, welcomed, { ...does, shuffle: others });
  };
  byId("progress").hidden = true;
  drawWelcome(indexes, welcomed, { ...does, shuffle: others });
  if (!welcomed.length) await others();
}

/** Samples drawn by chance, in the modality of the index that is asked first. */
async function some(indexes) {
  const [about] = answering(NOTHING, indexes);
  if (!about) return [];
  const ids = new Set(Array.from({ length: WELCOME }, () => Math.floor(Math.random() * about.rows)));
  const found = await Promise.allSettled([...ids].map((id) => api.sample(id)));
  return found
    .filter(({ status, value }) => status === "fulfilled" && value.parts[about.modality])
    .map(({ value: { id, key, caption, parts } }) => {
      remember(key, id);
      return { id, key, caption, modality: about.modality, media: parts[about.modality].url };
    });
}
