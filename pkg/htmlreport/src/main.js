// The script of a report. The page is complete without it: it adds the charts, the filters and the dialog of a log.

import { createLog } from "./log.js";
import { createTestFilter } from "./tests.js";
import { createTimeline } from "./timeline.js";
import { createTreemap } from "./treemap.js";

const data = JSON.parse(document.getElementById("data").textContent);

for (const element of document.querySelectorAll(".scripted")) {
  element.hidden = false;
}
const timeline = document.getElementById("timeline-chart");
if (timeline) {
  const log = createLog();
  createTimeline(timeline, data, log);
}
for (const element of document.querySelectorAll(".treemap")) {
  createTreemap(element, data.images[Number(element.dataset.image)].root);
}
if (document.getElementById("test-table")) {
  createTestFilter();
}
foldTables();
addCopyButtons();
focusScrollersOnly();

// foldTables closes the tables whose content the charts show.
function foldTables() {
  for (const details of document.querySelectorAll("details.unfold")) {
    details.open = false;
  }
  // A link to a row opens its table, and so does printing.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.unfold")) {
      details.open = true;
    }
  });
}

function addCopyButtons() {
  if (!navigator.clipboard) {
    return;
  }
  for (const code of document.querySelectorAll("code.copied")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy ${code.textContent}`);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
      }
    });
    code.after(button);
  }
}

// focusScrollersOnly removes areas from the tab order while all of their content is visible.
function focusScrollersOnly() {
  const update = (element) => {
    const scrolls = element.scrollWidth > element.clientWidth || element.scrollHeight > element.clientHeight;
    element.tabIndex = scrolls ? 0 : -1;
  };
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target)));
  for (const element of document.querySelectorAll(".scroll, main pre[tabindex]")) {
    observer.observe(element);
  }
}
