// createTestFilter hides the rows of tests that do not match the chosen statuses and the text.
export function createTestFilter() {
  const rows = [...document.querySelectorAll("#test-table > tbody > tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const statuses = [...document.querySelectorAll("#test-status input")];
  const text = document.getElementById("test-text");
  const known = new Set(statuses.map((input) => input.value));

  function filter() {
    const shown = new Set(statuses.filter((input) => input.checked).map((input) => input.value));
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, i) => {
      const status = row.dataset.status;
      row.hidden = (known.has(status) && !shown.has(status)) || !words.every((word) => texts[i].includes(word));
      count += row.hidden ? 0 : 1;
    });
    document.getElementById("test-count").textContent = `${count} of ${rows.length} shown`;
  }
  for (const input of statuses) {
    const found = rows.filter((row) => row.dataset.status === input.value).length;
    input.parentElement.append(` (${found})`);
    input.parentElement.hidden = found === 0;
    input.addEventListener("change", filter);
  }
  text.addEventListener("input", filter);
  filter();
}
