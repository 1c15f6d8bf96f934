"use strict";
// Draws the charts of the JSON above into the elements of the same ids, as wide as these are.
(() => {
  const { config, charts } = JSON.parse(document.getElementById("data").textContent);
  // Room for one column of a legend, and the width under which axes' names are shortened.
  const LEGEND_COLUMN = 275;
  const NARROW = 480;

  // Where a label may stand beside its point, best first: to the right (1) or left, below (1) or above.
  const SIDES = [[1, 0], [-1, 0], [1, -1], [-1, -1], [1, 1], [-1, 1], [0, -1], [0, 1]];
  const GAP = 11;
  const STEP = 4;
  const overlap = (one, other) =>
    Math.max(0, Math.min(one.right, other.right) - Math.max(one.left, other.left)) *
    Math.max(0, Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top));

  // Moves the labels of a chart apart from each other and from labelled points. One for which there
  // is no room is hidden: its numbers are in the tooltip and in the table.
  const spreadLabels = (holder) => {
    const texts = [...holder.querySelectorAll(".mark-text.role-mark text")].filter(
      (text) => text.__data__.lineBreak,
    );
    const points = texts.map((text) => text.__data__);
    const { width, height } = points[0]?.mark.group ?? {};
    const crowd = [...holder.querySelectorAll(".mark-symbol.role-mark path")].map(
      (mark) => mark.__data__,
    );
    const inside = (box, crowd) =>
      crowd.filter(
        ({ x, y }) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom,
      ).length;
    // Points along the lines of the chart, a few pixels apart.
    const strokes = [
      ...holder.querySelectorAll(".mark-rule.role-mark line, .mark-line.role-mark path"),
    ].flatMap((line) => {
      const shift = line.transform.baseVal.consolidate()?.matrix ?? { e: 0, f: 0 };
      const length = line.getTotalLength();
      return Array.from({ length: Math.ceil(length / STEP) }, (_, index) => {
        const { x, y } = line.getPointAtLength(index * STEP);
        return { x: x + shift.e, y: y + shift.f };
      });
    });
    const taken = points.map(({ x, y }) => ({
      left: x - GAP / 2, right: x + GAP / 2, top: y - GAP / 2, bottom: y + GAP / 2,
    }));
    for (const [index, text] of texts.entries()) {
      const { x, y } = points[index];
      text.setAttribute("text-anchor", "start");
      const box = text.getBBox();
      let best = { cost: Infinity };
      for (const [across, down] of SIDES) {
        const left = x + [-GAP - box.width, -box.width / 2, GAP][across + 1];
        const top = y + [-GAP - box.height, -box.height / 2, GAP][down + 1];
        const here = { left, top, right: left + box.width, bottom: top + box.height };
        const outside =
          Math.max(0, -left, here.right - width) + Math.max(0, -top, here.bottom - height);
        const covered = taken.reduce((sum, other) => sum + overlap(here, other), 0);
        // Lines and other points are covered if need be.
        const crossed = 4 * STEP * inside(here, strokes) + inside(here, crowd);
        const cost = 100 * outside + covered + crossed;
        if (cost < best.cost) best = { cost, covered, here };
      }
      text.style.display = best.covered > 1 ? "none" : "";
      if (best.covered > 1) continue;
      text.setAttribute("transform", `translate(${best.here.left - box.x},${best.here.top - box.y})`);
      taken.push(best.here);
    }
  };

  const draw = async (id) => {
    const holder = document.getElementById(id);
    const width = holder.clientWidth;
    holder.view?.finalize();
    holder.view = undefined;
    if (!width) return; // in a section that is closed: drawn when it is opened
    const narrow = width < NARROW;
    const specification = structuredClone(charts[id]);
    specification.width = "container";
    specification.autosize = { type: "fit-x", contains: "padding" };
    for (const parameter of specification.params ?? []) {
      if (parameter.name === "narrow") parameter.value = narrow;
    }
    const columns = Math.max(1, Math.floor(width / LEGEND_COLUMN));
    const fitted = {
      ...config,
      font: getComputedStyle(document.body).fontFamily,
      axis: { ...config.axis, ...(narrow && { labelFontSize: 11, titleFontSize: 11 }) },
      legend: { ...config.legend, columns, labelLimit: width - 40 },
    };
    const { view } = await vegaEmbed(holder, specification, {
      mode: "vega-lite",
      renderer: "svg",
      actions: false,
      defaultStyle: false,
      // Expressions are interpreted, never compiled: the page's policy forbids eval.
      ast: true,
      config: fitted,
      tooltip: { disableDefaultStyle: true, offsetX: 12, offsetY: 12 },
    });
    holder.view = view;
    spreadLabels(holder);
    view.addSignalListener("width", () => view.runAsync().then(() => spreadLabels(holder)));
    holder.dataset.drawn = "yes";
  };

  const drawAll = async (ids = Object.keys(charts)) => {
    for (const id of ids) {
      try {
        await draw(id);
      } catch (error) {
        console.error(id, error);
        document.getElementById(id).textContent = "This chart could not be drawn; its table is below.";
      }
    }
    document.documentElement.dataset.drawn = "yes";
  };

  // A phone shows the answer and the files; what follows opens at a touch, and for a link to it.
  const phone = matchMedia("(max-width: 40rem)");
  const folds = [...document.querySelectorAll(".fold")];
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target?.querySelector(".fold") ?? target?.closest(".fold");
    if (fold) fold.open = true;
  };
  const arrange = () => {
    document.documentElement.classList.toggle("folds", phone.matches);
    for (const fold of folds) fold.open = !phone.matches;
    reveal();
  };
  for (const fold of folds) {
    fold.addEventListener("toggle", () => {
      const undrawn = [...fold.querySelectorAll(".chart")].filter((one) => !one.view);
      if (fold.open) drawAll(undrawn.map((one) => one.id));
    });
  }
  addEventListener("hashchange", reveal);
  // Vega follows the width by itself; legends and shortened names need drawing anew.
  phone.addEventListener("change", () => {
    arrange();
    drawAll();
  });

  // On paper nothing can be opened: how to read a chart is told, the long tables are left out.
  // Charts get the width that they have on a sheet of A4.
  const SHEET = 700;
  const HALF = 480; // drawn larger than its half of the sheet, so that names and legends have room
  const fit = (width) => {
    for (const holder of document.querySelectorAll(".chart")) {
      holder.view?.width(width(holder)).runAsync().then(() => spreadLabels(holder));
    }
  };
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:is(.reading, .fold):not([open])")];
    for (const one of opened) one.open = true;
    fit((holder) => (holder.closest(".several, .pair") ? HALF : SHEET));
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
    fit((holder) => holder.clientWidth);
  });

  // Vega follows the width: labels are spread anew.
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => document.querySelectorAll(".chart").forEach(spreadLabels), 50);
  });

  // A click on a header sorts a table, by numbers where both cells begin with one.
  const value = (row, column) => row.cells[column].textContent.trim();
  const number = (text) => parseFloat(text.replaceAll(",", "").replace("−", "-"));
  const UNITS = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
  const size = (text) => number(text) * (UNITS[text.match(/[KMG]iB/)?.[0]] ?? 1);
  const compare = (one, other) => {
    if (!one || !other) return !one - !other;
    const difference = size(one) - size(other);
    return Number.isNaN(difference) ? one.localeCompare(other, undefined, { numeric: true }) : difference;
  };
  const sortBy = (header) => {
    const table = header.closest("table");
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const sign = ascending ? 1 : -1;
    const column = header.cellIndex;
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const [a, b] = [value(one, column), value(other, column)];
      return a && b ? sign * compare(a, b) : compare(a, b); // empty cells stay at the end
    });
    table.tBodies[0].append(...rows);
  };

  const markdown = (table) => {
    const escaped = (cell) => cell.textContent.trim().replace(/\s+/g, " ").replaceAll("|", "\\|");
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const headers = [...table.tHead.rows[0].cells];
    return [
      line(headers.map(escaped)),
      line(headers.map((one) => (one.classList.contains("text") ? ":--" : "--:"))),
      ...[...table.tBodies[0].rows].map((row) => line([...row.cells].map(escaped))),
      "",
    ].join("\n");
  };
  const copy = async (button, table) => {
    try {
      await navigator.clipboard.writeText(markdown(table));
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser does not allow it";
    }
    setTimeout(() => (button.textContent = "Copy as Markdown"), 2000);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sortBy(header));
      header.append(button);
    }
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy as Markdown";
    button.addEventListener("click", () => copy(button, table));
    table.parentElement.before(button);
  }

  arrange();
  drawAll();
})();
