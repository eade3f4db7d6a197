// Pictures and sounds come in: dropped, pasted or chosen.

import { byId, say } from "./dom.js";
import { take } from "./uploads.js";

/** From now on files are searched for: `does.terms(terms, add)` gets them as terms of a query. */
export function listen(does) {
  const takeIn = async (files, add) => {
    if (!files.length) return;
    try {
      does.terms(await Promise.all([...files].map(take)), add);
    } catch (error) {
      say(error.message);
    }
  };
  byId("pick").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", async () => {
    await takeIn(byId("file").files, does.asked());
    byId("file").value = "";
  });
  document.addEventListener("paste", (event) => takeIn(event.clipboardData?.files ?? [], does.asked()));
  listenToDrops(does, takeIn);
}

const brings = (event) => event.dataTransfer?.types.includes("Files");

function listenToDrops(does, takeIn) {
  document.addEventListener("dragenter", (event) => {
    if (!brings(event)) return;
    byId("drop").hidden = false;
    byId("drop-add").hidden = !does.asked();
  });
  document.addEventListener("dragover", (event) => brings(event) && event.preventDefault());
  byId("drop").addEventListener("dragleave", (event) => event.relatedTarget === null && (byId("drop").hidden = true));
  document.addEventListener("drop", (event) => {
    byId("drop").hidden = true;
    if (!brings(event)) return;
    event.preventDefault();
    takeIn(event.dataTransfer.files, event.target === byId("drop-add"));
  });
}
