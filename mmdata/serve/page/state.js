// What the page shows is what its address says. Uploads stay in this tab; the address only remembers that there were some.

const WEIGHTED = /^(.+)::([+-]?\d+(?:\.\d+)?)$/s;
const FILTER = /^([^<>=!~]+)(!=|<=|>=|=|<|>|~)(.*)$/s;
const KINDS = ["text", "key", "image", "audio"];

export const K = 24;
export const NOTHING = {
  terms: [], // {kind, value, weight}; the value of an image or audio is the id of an upload
  in: [], // names of indexes; none is the page's choice
  where: [], // {field, op, value}, value always text
  k: K,
  atLeast: "",
  fold: "",
  view: "results",
  colour: "",
  open: null, // id of a sample
};

/** The search part of an address that says this state. */
export function toAddress(state) {
  const said = new URLSearchParams();
  for (const term of state.terms) said.append(term.kind, weighted(term));
  for (const name of state.in) said.append("in", name);
  for (const { field, op, value } of state.where) said.append("where", `${escaped(field)}${op}${value}`);
  if (state.k !== K) said.set("k", state.k);
  if (state.atLeast !== "") said.set("at_least", state.atLeast);
  if (state.fold) said.set("fold", state.fold);
  if (state.view !== "results") said.set("view", state.view);
  if (state.colour) said.set("colour", state.colour);
  if (state.open !== null) said.set("open", state.open);
  return said.toString();
}

/** The state that an address says; what it says wrongly is left out. */
export function fromAddress(address) {
  const said = new URLSearchParams(address);
  const whole = (name, least) => (/^\d{1,15}$/.test(said.get(name) ?? "") && +said.get(name) >= least ? +said.get(name) : null);
  return {
    terms: [...said].filter(([name, value]) => KINDS.includes(name) && value).map(([kind, value]) => term(kind, value)),
    in: said.getAll("in"),
    where: said.getAll("where").map(filter).filter(Boolean),
    k: whole("k", 1) ?? K,
    atLeast: Number.isFinite(parseFloat(said.get("at_least"))) ? String(parseFloat(said.get("at_least"))) : "",
    fold: ["sample", "duplicates"].includes(said.get("fold")) ? said.get("fold") : "",
    view: said.get("view") === "map" ? "map" : "results",
    colour: said.get("colour") ?? "",
    open: whole("open", 0),
  };
}

/** "dotted::-0.5", as the command line writes it. */
function weighted({ value, weight }) {
  return weight === 1 && !WEIGHTED.test(value) ? value : `${value}::${weight}`;
}

function term(kind, text) {
  const match = WEIGHTED.exec(text);
  return match ? { kind, value: match[1], weight: parseFloat(match[2]) } : { kind, value: text, weight: 1 };
}

function filter(text) {
  const match = FILTER.exec(text);
  if (match === null) return null;
  try {
    return { field: decodeURIComponent(match[1]), op: match[2], value: match[3] };
  } catch {
    return null;
  }
}

const escaped = (field) => encodeURIComponent(field).replaceAll("!", "%21").replaceAll("~", "%7E");

/** The words of the search box: the first text that counts whole. */
export const mainText = (terms) => terms.find((one) => one.kind === "text" && one.weight === 1);
