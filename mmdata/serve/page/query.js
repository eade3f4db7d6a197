// From the state of the page to the bodies of its requests.

import { upload } from "./uploads.js";

/** The terms of a state that can be sent, and how many uploads are of another tab. */
export function usable(terms) {
  const there = terms.filter(({ kind, value }) => kind === "text" || kind === "key" || upload(value));
  return { there, lost: terms.length - there.length };
}

/** What one index, or several, are asked; `encode` says how the bytes of an upload are written. */
export function body(state, index, about, encode = (one) => one.base64) {
  const { there } = usable(state.terms);
  const terms = there.map(({ kind, value, weight }) => ({
    [kind]: kind === "image" || kind === "audio" ? encode(upload(value)) : value,
    ...(weight === 1 ? {} : { weight }),
  }));
  return {
    index,
    terms: terms.length ? terms : [{ vector: Array(about.dim).fill(1) }], // only filters: whatever passes them
    k: state.k,
    ...(state.where.length ? { where: state.where.map((one) => typed(one, about)) } : {}),
    ...(state.atLeast !== "" && there.length ? { at_least: Number(state.atLeast) } : {}),
    ...(state.fold ? { fold: state.fold } : {}),
  };
}

function typed({ field, op, value }, about) {
  const kind = about.fields.find((one) => one.name === field)?.type;
  if (kind === "number" && value.trim() !== "" && Number.isFinite(Number(value))) return { field, op, value: Number(value) };
  if (kind === "bool" && (value === "true" || value === "false")) return { field, op, value: value === "true" };
  return { field, op, value };
}

/** What of a query an index cannot take, as a modality, or null. */
export function cannot(about, terms) {
  const asked = terms.map(({ kind }) => kind).filter((kind) => kind !== "key");
  return asked.find((kind) => !about.queries.includes(kind)) ?? null;
}

/** The indexes that answer: those chosen, else for each modality the first that takes what is asked. */
export function answering(state, indexes) {
  const chosen = indexes.filter(({ name }) => state.in.includes(name));
  if (chosen.length) return chosen;
  const asked = state.terms.length ? state.terms : [{ kind: "text" }];
  const able = indexes.filter((about) => cannot(about, asked) === null);
  const first = able.filter((about) => able.find(({ modality }) => modality === about.modality) === about);
  return first.length ? first : indexes.slice(0, 1);
}
