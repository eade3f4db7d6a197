// Elements out of data. Text only ever becomes text: nothing here, or anywhere on the page, parses HTML.

/** An element with properties (`onclick`, `aria-label`, `className` ...) and children; null children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put children in the place of those that an element has; null children are left out. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** One of the drawings of index.html. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const byId = (id) => document.getElementById(id);

let saying;
/** A line at the foot of the page, for a few seconds. */
export function say(text) {
  clearTimeout(saying);
  byId("says").textContent = text;
  saying = setTimeout(() => (byId("says").textContent = ""), 6000);
}

/** A line for screen readers only. */
export function tell(text) {
  byId("told").textContent = text;
}

export const PLURAL = { image: "pictures", audio: "sounds", text: "texts" };

/** "1,500 pictures". */
export function counted(count, modality) {
  const plural = PLURAL[modality] ?? "rows";
  return `${count.toLocaleString("en")} ${count === 1 ? plural.slice(0, -1) : plural}`;
}

/** A value of metadata as text. */
export function shown(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

/** Seconds as 1:05. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
