// Draws the charts and moves the threshold. Reads the two JSON blocks of the page.
(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const charts = read("charts");
  const signals = figures.signals.filter((signal) => signal.bins.length > 0);
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false,
    ast: true, // expressions are interpreted, because the page's policy forbids eval
    tooltip: { disableDefaultStyle: true },
  };

  const drawn = [...document.querySelectorAll("[data-histogram]")].map((element) =>
    vegaEmbed(element, charts.histograms[signals[element.dataset.histogram].name], options));

  const explorer = document.getElementById("explorer");
  if (!explorer) return finish();
  explorer.hidden = false;
  const slider = document.getElementById("threshold");
  const container = document.getElementById("curve");
  const buttons = [...explorer.querySelectorAll("button")];
  const whole = new Intl.NumberFormat("en-US");
  const exact = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 10 });
  let selected = 0; // index of the signal
  let chart = null;

  // As `share` in text_format.py: never rounded to none or all.
  function share(part, rows) {
    if (rows <= 0) return "\u2013";
    if (part === 0 || part === rows) return part === 0 ? "0 %" : "100 %";
    const percent = (100 * part) / rows;
    if (percent < 0.1) {
      const digits = { maximumSignificantDigits: 2, maximumFractionDigits: 20 };
      return `${new Intl.NumberFormat("en-US", digits).format(percent)} %`;
    }
    return percent < 99.95 ? `${percent.toFixed(1)} %` : "over 99.9 %";
  }

  function move(index) {
    const signal = signals[selected];
    const threshold = signal.thresholds[index];
    const rows = signal.rows_at_or_above[index];
    const text = `${signal.name} \u2265 ${exact.format(threshold)} keeps ${whole.format(rows)} of ` +
      `${whole.format(figures.rows)} pairs`;
    slider.value = index;
    slider.setAttribute("aria-valuetext", `${text}, ${share(rows, figures.rows)}`);
    document.getElementById("answer-share").textContent = share(rows, figures.rows);
    document.getElementById("answer-text").textContent = text;
    if (chart) chart.view.signal("threshold", threshold).runAsync();
  }

  // The initial threshold keeps about as many pairs as the rules do, or else half of them.
  function start(signal) {
    const aim = figures.kept > 0 && figures.kept < figures.rows ? figures.kept : figures.rows / 2;
    let best = 0;
    signal.rows_at_or_above.forEach((rows, index) => {
      if (Math.abs(rows - aim) < Math.abs(signal.rows_at_or_above[best] - aim)) best = index;
    });
    return best;
  }

  async function show(number) {
    selected = number;
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", other === number));
    slider.max = signals[number].thresholds.length - 1;
    if (chart) chart.finalize();
    chart = null;
    move(start(signals[number]));
    const embedded = await vegaEmbed(container, charts.curves[signals[number].name], options);
    if (selected !== number) return; // another signal was chosen in the meantime
    chart = embedded;
    move(Number(slider.value));
  }

  function drag(event) {
    if (!chart || (event.type === "pointermove" && !event.buttons)) return;
    const left = container.querySelector("svg").getBoundingClientRect().left + chart.view.origin()[0];
    const at = chart.view.scale("x").invert(event.clientX - left);
    const thresholds = signals[selected].thresholds;
    let nearest = 0;
    thresholds.forEach((threshold, index) => {
      if (Math.abs(threshold - at) < Math.abs(thresholds[nearest] - at)) nearest = index;
    });
    move(nearest);
  }

  slider.addEventListener("input", () => move(Number(slider.value)));
  for (const type of ["pointerdown", "pointermove"]) container.addEventListener(type, drag);
  buttons.forEach((button, number) => button.addEventListener("click", () => show(number)));
  drawn.push(show(0));
  finish();

  function finish() {
    Promise.all(drawn).then(() => { document.documentElement.dataset.ready = "yes"; });
  }
})();
