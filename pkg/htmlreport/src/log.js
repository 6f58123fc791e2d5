import { duration } from "./format.js";

// createLog returns a function that shows the log of a bar of the timeline in a dialog. move(offset) returns the next
// bar, or undefined at the end. The browser closes the dialog with Escape and gives the focus back.
export function createLog() {
  const dialog = document.getElementById("log");
  const part = (name) => document.getElementById(`log-${name}`);
  let move = () => undefined;

  function show(bar) {
    const row = bar.step === undefined ? null : document.getElementById(`step-${bar.step}`);
    const log = bar.step === undefined ? null : document.querySelector(`pre#log-${bar.step}`);
    part("title").textContent = bar.name;
    part("note").textContent = describe(bar) + (log || bar.kind !== "step" ? "" : ". No output.");
    part("error").textContent = row?.querySelector("pre.failed")?.textContent ?? "";
    part("text").textContent = log?.textContent ?? "";
    part("text").hidden = !log;
    part("text").scrollTop = bar.status === "failed" ? part("text").scrollHeight : 0;
  }
  const go = (offset) => {
    const bar = move(offset);
    if (bar) {
      show(bar);
    }
  };
  part("previous").addEventListener("click", () => go(-1));
  part("next").addEventListener("click", () => go(1));
  part("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) {
      dialog.close(); // the backdrop
    }
  });
  return (bar, mover) => {
    move = mover;
    if (!dialog.open) {
      dialog.showModal();
    }
    show(bar);
  };
}

// describe returns the status and the times of a bar.
export function describe(bar) {
  const took = duration(bar.end - bar.start);
  const status = { cached: "cached", failed: `failed after ${took}` }[bar.status] ?? took;
  return [status, `started after ${duration(bar.start)}`, bar.note].filter(Boolean).join(", ");
}
