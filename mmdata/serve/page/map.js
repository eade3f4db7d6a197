// The collection in two dimensions. plotly.js draws points and lassos; no text of the data ever reaches it.

import { map, media, show } from "./api.js";
import { byId, counted, h, icon, put, say, shown, tell } from "./dom.js";
import { trouble } from "./hits.js";
import { remember } from "./seen.js";

const PALETTE = ["#3d7a68", "#d08a3c", "#5b7fb9", "#b3556b", "#8a6fb0", "#7d9a3f", "#c9a227", "#4aa3a8", "#9a6b4f", "#c77daa"];
const OTHER = "#9a978f";
const RAMP = [[0, "#31688e"], [0.5, "#35b779"], [1, "#e3c22b"]];
const SHOWN = 24; // thumbnails of a selection

let plotly = null;
let drawn = { asked: "", points: null, groups: [], chosen: new Set() };

function load() {
  plotly ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/vendor/plotly.min.js", onload: () => resolve(window.Plotly), onerror: () => reject(new Error("plotly.js did not load; is the Python package plotly installed where mmdata serve runs?")) });
    document.head.append(script);
  });
  plotly.catch(() => (plotly = null));
  return plotly;
}

/** Show the map of one index, coloured by a field, with the hits of the search ringed. */
export async function drawMap(state, about, hits, does) {
  const asked = `${about.name} ${about.generation} ${state.colour}`;
  if (drawn.asked === asked && drawn.points) return ring(hits);
  frame(about, state, does);
  byId("plot").classList.add("waiting");
  drawn = { asked, points: null, groups: [], chosen: new Set() };
  try {
    const field = about.fields.some(({ name }) => name === state.colour) ? state.colour : "";
    const [points, Plotly] = await Promise.all([map(about.name, field), load()]);
    if (drawn.asked !== asked) return;
    points.key.forEach((key, place) => remember(key, points.id[place]));
    drawn = { asked, points, about, field, Plotly, hits, does, groups: grouped(points, field), chosen: new Set() };
    await plot();
    legend();
    chosen(new Set());
  } catch (error) {
    drawn.asked = "";
    put(byId("plot"), trouble(error, () => drawMap(state, about, hits, does)));
  } finally {
    byId("plot").classList.remove("waiting");
  }
}

/** Colours follow the theme. */
export function repaint() {
  if (!drawn.points || byId("map").hidden) return;
  drawn.Plotly.relayout("plot", { "newselection.line.color": ink() });
  drawn.Plotly.restyle("plot", { "marker.color": ink() }, [drawn.groups.length]);
}

function frame(about, state, does) {
  const tool = (name, word, act, mode) => h("button", { type: "button", className: "quiet", title: word, "aria-label": word, "data-mode": mode ?? null, "aria-pressed": mode ? String(mode === "lasso") : null, onclick: act }, icon(name));
  const mode = (name, drag, word) => tool(name, word, () => dragMode(drag), drag);
  put(
    byId("map"),
    h(
      "header",
      {},
      h("label", { className: "option" }, h("span", {}, "Colour by"), h("select", { id: "colour", onchange: (event) => does.colour(event.target.value) }, h("option", { value: "" }, "nothing"), ...about.fields.map(({ name }) => h("option", { value: name, selected: name === state.colour }, name)))),
      h("span", { className: "map-tools", role: "group", "aria-label": "What dragging does" }, mode("lasso", "lasso", "Select with a lasso"), mode("box", "select", "Select with a box"), mode("move", "pan", "Move; the wheel zooms"), tool("fit", "Show everything", () => drawn.Plotly?.relayout("plot", { "xaxis.autorange": true, "yaxis.autorange": true }))),
      h("p", { className: "note figures", id: "map-note" }, about.name),
    ),
    h("div", { className: "plane" }, h("div", { id: "plot", role: "img", "aria-label": "The collection as points; near points are alike. The legend below selects by value." }), h("div", { id: "tip", className: "tip", hidden: true })),
    h("div", { id: "legend", className: "legend", role: "group", "aria-label": "Values; press to select" }),
    h("div", { id: "selection", className: "selection" }),
  );
}

function dragMode(mode) {
  drawn.Plotly?.relayout("plot", { dragmode: mode });
  byId("map").querySelectorAll("[data-mode]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
}

/** Points by the value of a field: the commonest values have a colour each, the others share one. */
function grouped(points, field) {
  const all = points.x.map((_, place) => place);
  if (!field) return [{ name: null, colour: PALETTE[0], places: all }];
  if (points.value.every((value) => value === null || typeof value === "number") && new Set(points.value).size > PALETTE.length) return [{ name: null, ramp: true, places: all.filter((place) => points.value[place] !== null) }, { name: "none", colour: OTHER, places: all.filter((place) => points.value[place] === null) }];
  const by = new Map();
  for (const place of all) {
    const name = points.value[place] === null ? "none" : shown(points.value[place]);
    by.set(name, [...(by.get(name) ?? []), place]);
  }
  const ordered = [...by].sort((a, b) => b[1].length - a[1].length);
  const main = ordered.slice(0, PALETTE.length).map(([name, places], place) => ({ name, colour: PALETTE[place], places }));
  const rest = ordered.slice(PALETTE.length).flatMap(([, places]) => places);
  return rest.length ? [...main, { name: "others", colour: OTHER, places: rest }] : main;
}

function trace(group) {
  const { points } = drawn;
  const pick = (column) => group.places.map((place) => column[place]);
  const size = Math.max(4, Math.min(9, 260 / Math.sqrt(points.x.length)));
  const colour = group.ramp ? { color: pick(points.value), colorscale: RAMP } : { color: group.colour };
  return { type: "scatter", mode: "markers", x: pick(points.x), y: pick(points.y), customdata: group.places, hoverinfo: "none", marker: { size, opacity: 0.8, ...colour }, selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.12 } } };
}

function rings() {
  const { points, hits } = drawn;
  const found = new Set(hits.map(({ id }) => id));
  const places = points.id.flatMap((id, place) => (found.has(id) ? [place] : []));
  return { type: "scatter", mode: "markers", x: places.map((place) => points.x[place]), y: places.map((place) => points.y[place]), hoverinfo: "skip", marker: { size: 15, color: ink(), symbol: "circle-open", line: { width: 1.6 } }, selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 1 } } };
}

const ink = () => getComputedStyle(document.body).color;

async function plot() {
  const { Plotly, does, groups } = drawn;
  const axis = { showticklabels: false, zeroline: false, showgrid: false, ticks: "" };
  const layout = { dragmode: "lasso", hovermode: "closest", showlegend: false, margin: { l: 8, r: 8, t: 8, b: 8 }, xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: "x" }, newselection: { line: { color: ink(), width: 1.5 } }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: drawn.asked };
  put(byId("plot"));
  await Plotly.newPlot("plot", [...groups.map(trace), rings()], layout, { displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: false });
  const placed = (event) => event?.points.map(({ customdata }) => customdata).filter((place) => place !== undefined) ?? [];
  byId("plot").on("plotly_selected", (event) => event && chosen(new Set(placed(event))));
  byId("plot").on("plotly_doubleclick", () => clear());
  byId("plot").on("plotly_click", (event) => placed(event).slice(0, 1).forEach((place) => does.open(hitOf(place))));
  byId("plot").on("plotly_hover", (event) => placed(event).slice(0, 1).forEach((place) => tip(place, event.event)));
  byId("plot").on("plotly_unhover", () => (byId("tip").hidden = true));
  note();
}

function note() {
  const { points, about, hits } = drawn;
  const some = points.x.length < about.rows ? `${counted(points.x.length, about.modality)} of ${about.rows.toLocaleString("en")}, drawn by chance` : counted(about.rows, about.modality);
  byId("map-note").textContent = `${about.name}: ${some}${hits.length ? "; what was found is ringed" : ""}`;
}

function ring(found) {
  drawn.hits = found;
  const last = drawn.groups.length;
  const { x, y } = rings();
  drawn.Plotly.restyle("plot", { x: [x], y: [y] }, [last]);
  note();
}

function hitOf(place) {
  const { points, about, field } = drawn;
  const metadata = field && points.value[place] !== null ? { [field]: points.value[place] } : {};
  return { id: points.id[place], key: points.key[place], caption: points.caption[place], modality: about.modality, media: media(points.id[place], about.modality, points.key[place]), metadata, score: 0 };
}

function tip(place, event) {
  const { points, about, field } = drawn;
  const box = byId("tip");
  const picture = about.modality === "image" ? h("img", { alt: "", width: 120 }) : null;
  if (picture) show(picture, `${media(points.id[place], "image", points.key[place])}&thumbnail=256`);
  put(box, [picture, h("span", {}, points.caption[place] || points.key[place]), field ? h("small", {}, `${field}: ${shown(points.value[place])}`) : null]);
  const plane = box.parentElement.getBoundingClientRect();
  const [x, y] = [event.clientX - plane.left, event.clientY - plane.top];
  box.style.left = `${x < plane.width / 2 ? x + 14 : x - 174}px`;
  box.style.top = `${Math.max(0, Math.min(y - 40, plane.height - 190))}px`;
  box.hidden = false;
}

function legend() {
  const { groups, points } = drawn;
  if (groups[0]?.ramp) {
    const known = groups[0].places.map((place) => points.value[place]);
    const ends = known.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    put(byId("legend"), h("span", { className: "figures" }, ends[0]), h("span", { className: "ramp" }), h("span", { className: "figures" }, ends[1]));
    return;
  }
  put(
    byId("legend"),
    ...groups.filter(({ name }) => name !== null).map((group) => {
      const dot = h("span", { className: "dot" });
      dot.style.background = group.colour;
      return h("button", { type: "button", className: "pill", onclick: () => pickGroup(group) }, dot, group.name || "(empty)", h("small", { className: "figures" }, group.places.length));
    }),
  );
}

function pickGroup(group) {
  const all = group.places.every((place) => drawn.chosen.has(place));
  const next = new Set(drawn.chosen);
  for (const place of group.places) all ? next.delete(place) : next.add(place);
  chosen(next);
  drawn.Plotly.restyle("plot", { selectedpoints: [...drawn.groups.map(({ places }) => (next.size ? places.flatMap((place, number) => (next.has(place) ? [number] : [])) : null)), null] });
}

function clear() {
  chosen(new Set());
  drawn.Plotly.relayout("plot", { selections: [] });
  drawn.Plotly.restyle("plot", { selectedpoints: [null] });
}

/** Show what is selected, and let it be taken away. */
function chosen(places) {
  drawn.chosen = places;
  const { about, does } = drawn;
  if (!places.size) {
    put(byId("selection"), h("p", { className: "note" }, "Draw around points to select them; press one to open it."));
    return;
  }
  const some = [...places].slice(0, SHOWN);
  put(
    byId("selection"),
    h("header", {}, h("h2", {}, `${counted(places.size, about.modality)} selected`), ...["jsonl", "csv"].map((kind) => h("button", { type: "button", onclick: () => save(kind) }, `Save as ${kind}`)), h("button", { type: "button", className: "plain", onclick: clear }, "Clear")),
    h("ul", { className: "strip" }, ...some.map((place) => small(hitOf(place), does)), places.size > SHOWN ? h("li", { className: "note" }, `and ${(places.size - SHOWN).toLocaleString("en")} more`) : null),
  );
  tell(`${counted(places.size, about.modality)} selected`);
}

function small(hit, does) {
  const picture = hit.modality === "image" ? h("img", { alt: "", loading: "lazy", onerror: () => picture.remove() }) : null;
  if (picture) show(picture, `${hit.media}&thumbnail=256`);
  return h("li", {}, h("button", { type: "button", title: hit.caption || hit.key, "aria-label": hit.caption || hit.key, onclick: () => does.open(hit) }, picture ?? h("span", { className: "caption" }, hit.caption || hit.key)));
}

function save(kind) {
  const { points, field, about, chosen: places } = drawn;
  const rows = [...places].sort((a, b) => a - b).map((place) => ({ id: points.id[place], key: points.key[place], caption: points.caption[place], x: points.x[place], y: points.y[place], ...(field ? { [field]: points.value[place] } : {}) }));
  const text = kind === "csv" ? asCsv(rows) : rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  const url = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/jsonl" }));
  h("a", { href: url, download: `${about.name}.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  say(`${rows.length.toLocaleString("en")} rows saved as ${about.name}.${kind}`);
}

/** RFC 4180. */
function asCsv(rows) {
  const cell = (value) => (/[",\r\n]/.test(shown(value ?? "")) ? `"${shown(value).replaceAll('"', '""')}"` : shown(value ?? ""));
  return [Object.keys(rows[0]), ...rows.map(Object.values)].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
