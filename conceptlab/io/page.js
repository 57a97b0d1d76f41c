"use strict";
// Sorting of tables and cards, and filtering by class, concept and image. No network, no storage.
(function () {
  const all = (query, under) => Array.from((under || document).querySelectorAll(query));

  all("table.sortable").forEach((table) => {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        all("th", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const key = (row) => row.cells[column].textContent.trim();
        const rows = all("tr", body).sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          const bySize = Number(x) - Number(y);
          return (down ? -1 : 1) * (Number.isNaN(bySize) ? x.localeCompare(y) : bySize);
        });
        body.append(...rows);
      });
    });
  });

  const tools = document.querySelector(".tools");
  if (!tools) return;
  tools.hidden = false;
  const field = (name) => tools.querySelector("[name=" + name + "]");
  const has = (element, list, value) => !value || (element.dataset[list] || "").split("\u001f").includes(value);

  function filter() {
    const one = field("class").value;
    const concept = field("concept").value;
    const text = field("image").value.trim().toLowerCase();
    let images = 0, concepts = 0;
    all("[data-concept]").forEach((element) => {
      const on = (!concept || element.dataset.concept === concept) && has(element, "classes", one);
      element.hidden = !on;
      if (on && element.tagName === "ARTICLE") concepts += 1;
    });
    all("[data-image]").forEach((element) => {
      const on = has(element, "classes", one) && has(element, "concepts", concept) &&
        element.dataset.image.toLowerCase().includes(text);
      element.hidden = !on;
      if (on && element.tagName === "ARTICLE") images += 1;
    });
    tools.querySelector("output").textContent = concepts + " concepts, " + images + " images shown";
  }

  function sort() {
    const key = field("order").value;
    all(".cards.concepts").forEach((cards) => {
      const rows = all("article", cards).sort((a, b) => key === "name"
        ? a.dataset.name.localeCompare(b.dataset.name)
        : Number(b.dataset[key]) - Number(a.dataset[key]));
      cards.append(...rows);
    });
  }

  tools.addEventListener("input", filter);
  field("order").addEventListener("change", sort);
  tools.querySelector("button").addEventListener("click", () => {
    all("select, input", tools).forEach((one) => {
      if (one.tagName === "SELECT") one.selectedIndex = 0;
      else one.value = "";
    });
    filter();
    sort();
  });
  filter();
})();
