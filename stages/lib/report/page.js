"use strict";
// Draws the charts of the JSON above into the elements of the same ids, as wide as these are.
(() => {
  const { config, charts } = JSON.parse(document.getElementById("data").textContent);
  // Room for one column of a legend, and the width under which axes' names are shortened.
  const LEGEND_COLUMN = 250;
  const NARROW = 480;

  const draw = async (id) => {
    const holder = document.getElementById(id);
    const width = holder.clientWidth;
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
    holder.view?.finalize();
    holder.view = view;
    holder.dataset.drawn = "yes";
  };

  const drawAll = async () => {
    for (const id of Object.keys(charts)) {
      try {
        await draw(id);
      } catch (error) {
        console.error(id, error);
        document.getElementById(id).textContent = "This chart could not be drawn; its table is below.";
      }
    }
    document.documentElement.dataset.drawn = "yes";
  };

  // Vega follows the width by itself; legends and shortened names need drawing anew.
  matchMedia("(max-width: 40rem)").addEventListener("change", drawAll);

  // On paper nothing can be opened.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });

  drawAll();
})();
