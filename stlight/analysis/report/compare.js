// Numbers come from Python as they are; only their sign depends on which cell is chosen first.
function pairView(form) {
  const { sets, curves } = JSON.parse(document.getElementById("pairs").textContent);
  const into = document.getElementById("pair"), { of, metric, first, second } = form.elements;
  const repeated = sets.findIndex(set => set.metrics.some(one => one.low));
  into.hidden = false;
  options(of, sets.map(set => [set.name, set.title]));

  function options(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  }

  function fill(values) {
    of.value = values.of;
    if (of.selectedIndex < 0) of.selectedIndex = Math.max(repeated, 0);
    const set = sets[of.selectedIndex], cells = set.cells.map(cell => [cell.name, cell.label]);
    options(metric, set.metrics.map(one => [one.name, one.label]));
    for (const select of [first, second]) options(select, cells);
    for (const [select, other] of [[metric, 0], [first, 0], [second, 1]]) {
      select.value = values[select.name];
      if (select.selectedIndex < 0) select.selectedIndex = other;
    }
    show();
  }

  function show() {
    const set = sets[of.selectedIndex], one = set.metrics[metric.selectedIndex], [i, j] = [first.selectedIndex, second.selectedIndex];
    const chosen = [i, j].map(k => set.cells[k]);
    const rows = chosen.map((cell, k) => [cell.label, one.cells[[i, j][k]]]);
    rows.push(["second minus first", i === j ? "one cell, no difference" : differenceText(one, set.cells.length, i, j)]);
    const table = document.createElement("table");
    for (const [k, texts] of rows.entries()) {
      const row = table.insertRow(), head = document.createElement("th");
      head.scope = "row";
      head.textContent = texts[0];
      if (k < 2) head.className = ["first", "second"][k];
      row.append(head);
      row.insertCell().textContent = texts[1];
    }
    table.createCaption().textContent = `${one.label}, mean over seeds (95 % interval)`;
    into.replaceChildren(table, chart(chosen.map(cell => curves[cell.runs][one.curve]), one.curve_label));
  }

  onChoice(form, event => {
    if (event.target === of) fill({ of: of.value });
    else show();
    writeAddress(form);
  });
  return { fill, show: () => fill({}) };
}

function differenceText(metric, cells, i, j) {
  const [a, b] = [Math.min(i, j), Math.max(i, j)], at = a * cells - a * (a + 1) / 2 + b - a - 1, sign = i < j ? 1 : -1;
  const number = name => metric[name]?.[at] ?? null;
  const text = value => (metric.digits === null || value && Math.abs(value) < 0.005 ? String(value) : value.toFixed(metric.digits)).replace("-", "−");
  const how = `n = ${metric.n[at]}, ${metric.paired[at] ? "paired by seed" : "independent seeds"}`;
  const estimate = number("estimate");
  if (estimate === null) return `not finite: a run diverged, or never learnt; ${how}`;
  const ends = [number("low"), number("high")];
  if (ends[0] === null) return `${text(sign * estimate || 0)}, no interval; ${how}`;
  const [low, high] = sign > 0 ? ends : [-ends[1], -ends[0]];
  return `${text(sign * estimate || 0)} (${text(low || 0)} to ${text(high || 0)}), 95 % interval; ${how}`;
}

// Draw two curves: the mean over the seeds, and the band from the lowest to the highest.
function chart(curves, label) {
  const [width, height, left, bottom, top] = [640, 300, 64, 34, 10];
  const values = curves.flatMap(curve => [...curve.mean, ...(curve.low || []), ...(curve.high || [])]).filter(Number.isFinite);
  const epochs = curves.flatMap(curve => curve.epoch);
  if (!values.length) return document.createTextNode("no curve");
  const [low, high, first, last] = [Math.min(...values), Math.max(...values), Math.min(...epochs), Math.max(...epochs)];
  const log = low > 0 && high > 5 * low, scale = log ? Math.log : value => value;
  const x = epoch => left + (width - left - 12) * (last > first ? (epoch - first) / (last - first) : 0.5);
  const y = value => height - bottom - (height - bottom - top) * (high > low ? (scale(value) - scale(low)) / (scale(high) - scale(low)) : 0.5);
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": `${label} by epoch of the two cells` });
  for (const value of ticks(low, high, log)) {
    svg.append(node("line", { class: "tick", x1: left, x2: width - 12, y1: y(value), y2: y(value) }));
    svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const epoch of ticks(first, last, false)) svg.append(node("text", { x: x(epoch), y: height - 12, "text-anchor": "middle" }, String(epoch)));
  const points = (curve, key) => curve.epoch.map((epoch, k) => [epoch, curve[key][k]]).filter(([, value]) => value !== null).map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`);
  for (const [k, curve] of curves.entries()) {
    const name = ["first", "second"][k];
    if (curve.low) svg.append(node("polygon", { class: `band ${name}`, points: [...points(curve, "low"), ...points(curve, "high").reverse()].join(" ") }));
    svg.append(node("polyline", { class: `mean ${name}`, points: points(curve, "mean").join(" ") }));
  }
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = `${label} by epoch${log ? ", logarithmic" : ""}: mean over the seeds, and the band from the lowest to the highest`;
  figure.append(svg, caption);
  return figure;
}

function node(tag, attributes, text = "") {
  const { namespaceURI } = document.createRange().createContextualFragment("<svg></svg>").firstChild;
  const made = document.createElementNS(namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// Return up to about six round numbers between two values.
function ticks(low, high, log) {
  const found = [];
  if (log) {
    const steps = high > 60 * low ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) for (const step of steps) found.push(Number(`${step}e${power}`));
  } else {
    const rough = (high - low || 1) / 5, unit = 10 ** Math.floor(Math.log10(rough)), step = unit * [1, 2, 5, 10].find(factor => factor * unit >= rough);
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(Number((k * step).toPrecision(6)));
  }
  return found.filter(value => value >= low && value <= high);
}
