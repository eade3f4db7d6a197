// The search as a link, for a shell and for Python.

import { byId, h, put } from "./dom.js";
import { apiKey } from "./api.js";
import { body } from "./query.js";

/** Open the dialog with the three of them. */
export function openShare(state, answerers) {
  const uploads = state.terms.some(({ kind }) => kind === "image" || kind === "audio");
  put(
    byId("share"),
    h("h2", { id: "share-title" }, "Take this search along"),
    snippet("Link", location.href),
    uploads ? h("p", { className: "note" }, "A picture or a sound of yours cannot travel in a link: whoever opens it is asked to add the file again.") : null,
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

const names = (answerers) => (answerers.length === 1 ? answerers[0].name : answerers.map(({ name }) => name));

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function asCurl(state, answerers) {
  const files = [];
  const asked = body(state, names(answerers), answerers[0], (one) => `@${files.push(one.name) - 1}@`);
  let data = quoted(JSON.stringify(asked));
  files.forEach((name, place) => (data = data.replace(`@${place}@`, () => `'"$(base64 < ${quoted(name)} | tr -d '\\n')"'`)));
  const key = apiKey() ? ` \\\n  -H "Authorization: Bearer $(cat KEYFILE)"` : "";
  return `curl -s ${location.origin}/search -H 'Content-Type: application/json'${key} \\\n  --data-binary @- <<< ${data}`;
}

export function asPython(state, answerers) {
  let files = 0;
  const put = [];
  const asked = body(state, names(answerers), answerers[0], (one) => {
    put.push(one.name);
    return `@${files++}@`;
  });
  let literal = python(asked);
  put.forEach((name, place) => (literal = literal.replace(`"@${place}@"`, () => `base64.b64encode(Path(${JSON.stringify(name)}).read_bytes()).decode()`)));
  const headers = `{"Content-Type": "application/json"${apiKey() ? ', "Authorization": "Bearer " + Path("KEYFILE").read_text().strip()' : ""}}`;
  return [
    ...(put.length ? ["import base64"] : []),
    "import json",
    ...(put.length || apiKey() ? ["from pathlib import Path"] : []),
    "from urllib.request import Request, urlopen",
    "",
    `asked = ${literal}`,
    `request = Request(${JSON.stringify(`${location.origin}/search`)}, json.dumps(asked).encode(), ${headers})`,
    `for answer in json.load(urlopen(request))["answers"]:`,
    `    for hit in answer["hits"]:`,
    `        print(answer["index"], round(hit["score"], 3), hit["key"], hit["caption"])`,
  ].join("\n");
}

/** JSON as Python: its strings are Python's, its three words are not. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{${Object.entries(value).map(([name, inner]) => `${JSON.stringify(name)}: ${python(inner)}`).join(", ")}}`;
  return { true: "True", false: "False", null: "None" }[JSON.stringify(value)] ?? JSON.stringify(value);
}
