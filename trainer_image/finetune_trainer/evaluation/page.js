"use strict";
(() => {
  const rows = [...document.querySelectorAll("[data-kind]")];
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  let kind = "all";
  const show = () => {
    const wanted = search.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = (kind === "all" || row.dataset.kind === kind) && row.textContent.toLowerCase().includes(wanted);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} row${rows.length === 1 ? "" : "s"} shown`;
  };
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      kind = button.dataset.show;
      document.querySelectorAll("[data-show]").forEach((one) => one.setAttribute("aria-pressed", one === button));
      show();
    });
  }
  if (search) {
    search.addEventListener("input", show);
    show();
  }
})();
