"""The script that connects sliders, chart and list with the functions of `tuning_script`."""

SCRIPT = r"""
"use strict";
(() => {
  const {ordered, valuesOf, changesOf, yaml} = window.rankerTuning;
  const {termsOf, linearScore} = window.rankerTuning;
  const page = JSON.parse(document.getElementById("tuning-data").textContent);
  const by = (id) => document.getElementById(id);
  const decode = ({type, base64}) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return new (type === "f4" ? Float32Array : Float64Array)(bytes.buffer);
  };
  const decoded = (columns) =>
    Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, decode(column)]));
  const predictions = decoded(page.predictions), labels = decoded(page.labels);
  const starts = page.list_starts, numRows = Object.values(labels)[0].length;
  const judged = Object.fromEntries(
    page.tasks.filter((t) => t.is_judged).map((t) => [t.name, labels[t.name]]));
  const predicted = page.tasks.filter((task) => task.is_predicted);
  const today = page.points[0].weights;
  const smallest = Math.min(...Object.values(today).filter((weight) => weight > 0));
  const base = (name) => today[name] > 0 ? today[name] : smallest;
  // names of tasks may hold spaces: elements are called by number
  const number = Object.fromEntries(page.tasks.map((task, i) => [task.name, i]));
  const DECADES = 2;  // each way; at the left end of a slider the task weighs nothing
  const state = {weights: {...today}, combination: page.combination};

  const cache = {};
  const linear = (combination, weights) => {
    cache[combination] ??= termsOf(predictions, page.tasks, combination, starts);
    return linearScore(cache[combination], weights, numRows, combination);
  };
  const todaysOrder = ordered(linear(page.combination, today), starts);
  const todaysValues = valuesOf(todaysOrder, starts, judged, page.at);

  const sign = (text) => text.replace("-", "−");
  const percent = (x) => x !== x ? "–" : sign(`${x > 0 ? "+" : ""}${(100 * x).toFixed(2)} %`);
  const amount = (x) => {
    const size = Math.abs(x);
    return x !== x ? "–" : sign(x.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 5));
  };
  const probability = (p) => `${(100 * p).toFixed(p < 0.001 ? 3 : p < 0.01 ? 2 : 1)} %`;
  const shown = (task, value) => value !== value ? "–"
    : task.kind === "binary" ? probability(value) : sign(value.toFixed(1));
  const node = (name, text = "", css = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    if (css) made.className = css;
    return made;
  };

  const drawSliders = () => {
    for (const {name} of predicted) {
      const weight = state.weights[name];
      const place = weight > 0 ? Math.log10(weight / base(name)) : -DECADES;
      const slider = by(`weight-${number[name]}`);
      slider.value = Math.max(-DECADES, Math.min(DECADES, place));
      const text = weight > 0 ? String(Number(weight.toPrecision(3))) : "off";
      slider.setAttribute("aria-valuetext", text);
      by(`shown-${number[name]}`).textContent = text;
    }
    by("combination").value = state.combination;
  };

  const drawValues = (values, changes) => {
    for (const family of ["engagement", "satisfaction"]) {
      by(`live-${family}`).textContent = percent(changes[family]);
      by(`live-${family}`).dataset.sign = Math.sign(Math.round(1e4 * changes[family]));
    }
    for (const task of page.tasks.filter((one) => one.is_judged)) {
      by(`now-${number[task.name]}`).textContent = amount(values[task.name]);
      by(`change-${number[task.name]}`).textContent = percent(changes[task.name]);
    }
  };

  const drawPoint = (changes) => {
    const plot = document.querySelector("#front .plot");
    if (!plot.data) return;
    const here = plot.data.findIndex((trace) => trace.name === "you");
    const x = 100 * changes.engagement, y = 100 * changes.satisfaction;
    const usable = x === x && y === y;
    Plotly.restyle(plot, {x: [usable ? [x] : []], y: [usable ? [y] : []]}, [here]);
  };

  const listRows = (order) => {
    const one = page.shown[Number(by("request").value)];
    const start = starts[one.list];
    return {one, start, rows: Array.from(order.subarray(start, start + one.items.length))};
  };

  const drawList = (order) => {
    const {one, start, rows} = listRows(order);
    const before = listRows(todaysOrder).rows;
    const body = by("list-body");
    body.replaceChildren(...rows.map((row, rank) => {
      const was = before.indexOf(row), up = was - rank;
      const line = document.createElement("tr");
      const head = node("th", one.items[row - start]);
      head.scope = "row";
      const move = up > 0 ? `▲ ${up}` : up < 0 ? `▼ ${-up}` : "·";
      const happened = page.tasks.filter((t) => labels[t.name][row] > 0).map((t) =>
        t.kind === "binary" ? t.name : `${t.name} ${labels[t.name][row].toFixed(1)}`);
      line.append(head, node("td", String(rank + 1), "num"), node("td", String(was + 1), "num"),
        node("td", move, up > 0 ? "num up" : up < 0 ? "num down" : "num same"),
        ...predicted.map((t) => node("td", shown(t, predictions[t.name][row]), "num")),
        node("td", happened.join(", ") || "nothing", "quiet"));
      return line;
    }));
    const moved = rows.filter((row, rank) => before[rank] !== row).length;
    by("list-moved").textContent = moved
      ? `${moved} of ${rows.length} items stand elsewhere than under today’s weights.`
      : "Every item stands where today’s weights put it.";
  };

  let pending = false;
  const update = () => {
    pending = false;
    const usable = Object.values(state.weights).some((weight) => weight > 0);
    by("all-zero").hidden = usable;
    by("copy").disabled = !usable;
    drawSliders();
    by("yaml").textContent = usable ? yaml(state.combination, state.weights) : "";
    by("copied").textContent = "";
    if (!usable) return;
    const order = ordered(linear(state.combination, state.weights), starts);
    const values = valuesOf(order, starts, judged, page.at);
    const changes = changesOf(values, todaysValues, page.tasks);
    state.changes = changes;
    drawValues(values, changes);
    drawPoint(changes);
    drawList(order);
  };
  const soon = () => {
    if (!pending) requestAnimationFrame(update);
    pending = true;
  };

  for (const {name} of predicted) {
    by(`weight-${number[name]}`).addEventListener("input", (event) => {
      const place = Number(event.target.value);
      state.weights[name] = place <= -DECADES ? 0 : base(name) * 10 ** place;
      soon();
    });
  }
  by("combination").addEventListener("change", (event) => {
    state.combination = event.target.value;
    soon();
  });
  by("request").addEventListener("change", soon);
  by("preset").addEventListener("change", (event) => {
    const point = page.points[Number(event.target.value)];
    if (!point) return;
    Object.assign(state, {weights: {...point.weights}, combination: page.combination});
    event.target.value = "";
    soon();
  });
  by("copy").addEventListener("click", async () => {
    const text = by("yaml").textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(by("yaml"));
      done = document.execCommand("copy");
    }
    by("copied").textContent = done ? "Copied." : "Select the text above and copy it.";
  });
  // the chart is drawn anew when the theme changes
  document.documentElement.addEventListener("charts-drawn", () => {
    if (state.changes) drawPoint(state.changes);
  });
  window.rankerTuning.state = state;
  update();
})();
"""
