// The question for the key of a locked service.

import { byId, h, put } from "./dom.js";

let asking = null;

/** The key that the user gives; one question, however many requests were refused. `wrong`: the last one was. */
export function unlock(wrong) {
  asking ??= new Promise((resolve) => {
    const box = h("input", { type: "password", id: "api-key", required: true, autocomplete: "off" });
    const send = (event) => {
      event.preventDefault();
      byId("locked").close();
      asking = null;
      resolve(box.value.trim());
    };
    put(
      byId("locked"),
      h("h2", { id: "locked-title" }, "This collection is locked"),
      h("form", { onsubmit: send }, h("label", { for: "api-key" }, wrong ? "That key is not right. The API key:" : "The API key of this service:"), box, h("p", { className: "note" }, "It stays in this tab, and is forgotten with it."), h("button", { className: "go" }, "Unlock")),
    );
    byId("locked").showModal();
  });
  return asking;
}

byId("locked").addEventListener("cancel", (event) => event.preventDefault());
