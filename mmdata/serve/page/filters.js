// Filters made of the fields of the indexes that answer, and how many hits there may be.

import { byId, h, icon, put, shown } from "./dom.js";

const MANY = 8; // values of a field that are shown at first, unless few more are left
const opened = new Set(); // fields whose values are all shown

/** Draw the panel; `change(patch)` is called with what the user alters. */
export function drawFilters(state, answerers, change) {
  const fields = new Map(answerers.flatMap((about) => about.fields).map((field) => [field.name, field]));
  const focused = document.activeElement?.id;
  put(
    byId("filters"),
    h("h2", {}, "Filters"),
    ...[...fields.values()].map((field) => draw(field, state, change)),
    fields.size ? null : h("p", { className: "note" }, "This collection has no fields to filter by."),
    options(state, change),
    state.where.length ? h("button", { type: "button", className: "plain", onclick: () => change({ where: [] }) }, "Clear filters") : null,
    h("button", { type: "button", className: "go done", onclick: () => toggleFilters(false) }, "Show what is left"),
  );
  if (focused) byId(focused)?.focus();
  byId("filter-count").hidden = state.where.length === 0;
  byId("filter-count").textContent = state.where.length;
}

/** Open or close the panel where it is not always there; the other of the two when `open` is not given. */
export function toggleFilters(open = !byId("filters").classList.contains("open")) {
  byId("filters").classList.toggle("open", open);
  byId("show-filters").setAttribute("aria-expanded", String(open));
}

function draw(field, state, change) {
  const own = state.where.filter((one) => one.field === field.name);
  const set = (conditions) => change({ where: [...state.where.filter((one) => one.field !== field.name), ...conditions] });
  const inner = field.type === "number" ? range(field, own, set) : values(field, own, set);
  return h("fieldset", { className: own.length ? "active" : "" }, h("legend", {}, field.name), ...inner);
}

function range(field, given, set) {
  const own = given.flatMap((one) => (one.op === "=" ? [{ ...one, op: ">=" }, { ...one, op: "<=" }] : [one]));
  const end = (op, word, hint) => {
    const now = own.find((one) => one.op === op)?.value ?? "";
    const others = own.filter((one) => one.op !== op);
    const change = (event) => set([...others, ...(event.target.value === "" ? [] : [{ field: field.name, op, value: event.target.value }])]);
    return h("label", {}, h("span", {}, word), h("input", { id: `f-${field.name}-${op}`, type: "number", step: "any", value: now, placeholder: hint ?? "", onchange: change, "aria-label": `${field.name}, ${word}` }));
  };
  return [h("div", { className: "range" }, end(">=", "from", field.min), end("<=", "to", field.max))];
}

function values(field, own, set) {
  const all = field.values.map(String);
  const chosen = own.filter((one) => one.op === "=" || one.op === "!=").map(({ value }) => value);
  const some = opened.has(field.name) ? all : all.slice(0, all.length > MANY + 2 ? MANY : undefined);
  const listed = [...new Set([...some, ...chosen])];
  const rest = all.length - some.length;
  const more = h("button", { type: "button", className: "plain", onclick: () => { opened.add(field.name); set(own); } }, `${rest} more`);
  const contains = own.find((one) => one.op === "~");
  const find = (event) => {
    const others = own.filter((one) => one !== contains);
    set([...others, ...(event.target.value === "" ? [] : [{ field: field.name, op: "~", value: event.target.value }])]);
  };
  return [
    h("div", { className: "values" }, ...listed.map((value) => pill(field, value, own, set)), rest > 0 ? more : null),
    field.type === "text" && (all.length > MANY + 2 || contains)
      ? h("input", { id: `f-${field.name}-has`, type: "search", placeholder: "contains …", value: contains?.value ?? "", onchange: find, "aria-label": `${field.name} contains` })
      : null,
  ];
}

/** Off, only this, all but this, off. */
function pill(field, value, own, set) {
  const now = own.find((one) => one.value === value && (one.op === "=" || one.op === "!="));
  const others = own.filter((one) => one !== now);
  const turn = () => {
    if (!now) set([...others.filter((one) => one.op !== "="), { field: field.name, op: "=", value }]);
    else if (now.op === "=") set([...others, { field: field.name, op: "!=", value }]);
    else set(others);
  };
  const meaning = { "=": "only", "!=": "not" }[now?.op] ?? "";
  return h(
    "button",
    {
      type: "button",
      id: `f-${field.name}-${value}`,
      className: `pill ${meaning}`,
      "aria-pressed": String(Boolean(now)),
      "aria-label": `${field.name}: ${meaning} ${shown(value)}`,
      title: "Once: only these. Twice: all but these.",
      onclick: turn,
    },
    meaning === "not" ? icon("minus") : null,
    shown(value) || "(empty)",
  );
}

function options(state, change) {
  const choice = (label, now, all, name) =>
    h("label", { className: "option" }, h("span", {}, label), h("select", { id: `o-${name}`, onchange: (event) => change({ [name]: name === "k" ? Number(event.target.value) : event.target.value }) }, ...all.map(([value, text]) => h("option", { value, selected: String(value) === String(now) }, text))));
  const counts = [...new Set([12, 24, 48, 96, state.k])].sort((a, b) => a - b);
  return h(
    "fieldset",
    { className: state.fold || state.atLeast !== "" ? "active" : "" },
    h("legend", {}, "Hits"),
    choice("How many", state.k, counts.map((count) => [count, count]), "k"),
    choice("Show as one", state.fold, [["", "nothing"], ["sample", "parts of a sample"], ["duplicates", "duplicates"]], "fold"),
    h("label", { className: "option" }, h("span", {}, "Least score"), h("input", { id: "o-least", type: "number", step: 0.05, value: state.atLeast, placeholder: "any", onchange: (event) => change({ atLeast: event.target.value }) })),
  );
}
