// Light, dark, or as the system; theme.js puts the choice in place before the page is drawn.

import { byId, say } from "./dom.js";

const THEMES = { system: "as the system", light: "light", dark: "dark" };

/** From now on the button turns the theme, and `turned` is called after it. */
export function listen(turned) {
  const root = document.documentElement.dataset;
  byId("theme-now").textContent = THEMES[root.theme] ?? THEMES.system;
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    root.theme = names[(names.indexOf(root.theme) + 1) % names.length];
    localStorage.setItem("mmdata-theme", root.theme);
    byId("theme-now").textContent = THEMES[root.theme];
    say(`Colours: ${THEMES[root.theme]}`);
    turned();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", turned);
}
