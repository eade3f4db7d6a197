// The search as a link, for a shell and for Python.

import { byId, h, put } from "./dom.js";
import { apiKey } from "./api.js";
import { body, usable } from "./query.js";
import { upload } from "./uploads.js";

/** Open the dialog with the three of them. */
export function openShare(state, answerers) {
  put(
    byId("share"),
    h("h2", { id: "share-title" }, "Take this search along"),
    snippet("Link", location.href),
    uploads(state).length ? h("p", { className: "note" }, "A picture or a sound of yours cannot travel in a link: whoever opens it is asked to add the file again.") : null,
    snippet("curl", asCurl(state, answerers)),
    snippet("Python", asPython(state, answerers)),
    h("form", { method: "dialog" }, h("button", { className: "go" }, "Close")),
  );
  byId("share").showModal();
}

function snippet(name, code) {
  const shown = h("pre", { tabIndex: 0, "aria-label": name, "data-code": name }, code);
  const copy = h("button", { type: "button", className: "plain", "aria-label": `Copy ${name}`, onclick: () => copied(shown, copy) }, "Copy");
  return h("section", {}, h("header", {}, h("h3", {}, name), copy), shown);
}

async function copied(shown, button) {
  try {
    await navigator.clipboard.writeText(shown.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown); // no clipboard without https or loopback
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 3000);
}

/** The question to all who answer; where only filters are given, to the first, since its stand-in for a query fits no other. */
function question(state, answerers, encode) {
  const all = state.terms.length ? answerers.map(({ name }) => name) : [answerers[0].name];
  return body(state, all.length === 1 ? all[0] : all, answerers[0], encode);
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

const uploads = (state) => usable(state.terms).there.flatMap(({ value }) => upload(value) ?? []);
const mark = ({ id }) => `bytes of ${id}`; // where the text of a request will name a file; ids are drawn by chance

export function asCurl(state, answerers) {
  const files = uploads(state);
  let data = quoted(JSON.stringify(question(state, answerers, mark)));
  for (const one of files) data = data.replaceAll(mark(one), () => `'"$(base64 < ${quoted(one.name)} | tr -d '\\n')"'`);
  const key = apiKey() ? ` \\\n  -H "Authorization: Bearer $(cat KEYFILE)"` : "";
  const sent = files.length ? `--data-binary @- <<< ${data}` : `-d ${data}`; // an argument has room for 128 kB only
  return `curl -s ${location.origin}/search -H 'Content-Type: application/json'${key} \\\n  ${sent}`;
}

export function asPython(state, answerers) {
  const files = uploads(state);
  let asked = python(question(state, answerers, mark));
  for (const one of files) asked = asked.replaceAll(JSON.stringify(mark(one)), () => `base64.b64encode(Path(${JSON.stringify(one.name)}).read_bytes()).decode()`);
  const headers = `{"Content-Type": "application/json"${apiKey() ? ', "Authorization": "Bearer " + Path("KEYFILE").read_text().strip()' : ""}}`;
  return [
    ...(files.length ? ["import base64"] : []),
    "import json",
    ...(files.length || apiKey() ? ["from pathlib import Path"] : []),
    "from urllib.request import Request, urlopen",
    "",
    `asked = ${asked.replace(/^\{/, "{\n    ").replace(/\}$/, ",\n}")}`,
    `request = Request(${JSON.stringify(`${location.origin}/search`)}, json.dumps(asked).encode(), ${headers})`,
    `for answer in json.load(urlopen(request))["answers"]:`,
    `    for hit in answer["hits"]:`,
    `        print(answer["index"], round(hit["score"], 3), hit["key"], hit["caption"])`,
  ].join("\n");
}

/** JSON as Python: its strings are Python's, its three words are not. */
function python(value, deep = false) {
  if (Array.isArray(value)) return `[${value.map((one) => python(one, true)).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{${Object.entries(value).map(([name, inner]) => `${JSON.stringify(name)}: ${python(inner, true)}`).join(deep ? ", " : ",\n    ")}}`;
  return { true: "True", false: "False", null: "None" }[JSON.stringify(value)] ?? JSON.stringify(value);
}
