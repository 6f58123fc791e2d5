// tooltip returns an element with a title and lines of text. Elements, not HTML: names come from outside.
export function tooltip(title, ...lines) {
  const element = document.createElement("div");
  element.className = "tooltip";
  const heading = document.createElement("b");
  heading.textContent = title.length > 300 ? `${title.slice(0, 300)}…` : title;
  element.append(heading, ...lines.filter(Boolean).flatMap((line) => [line, document.createElement("br")]));
  return element;
}

// tooltipStyle is the common part of the options of all tooltips.
export const tooltipStyle = {
  confine: true,
  transitionDuration: 0,
  backgroundColor: "var(--background)",
  borderColor: "var(--line)",
  textStyle: { color: "var(--text)" },
};
