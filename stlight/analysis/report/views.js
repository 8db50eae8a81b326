"use strict";
// The address holds the state of all controls that were used: "#runs?run.order=-mse&claims.words=kernel".
const forms = [...document.querySelectorAll("form[data-view]")];
const views = {}; // By name: put values into the controls, and show the page as the controls say.

function fieldsOf(form) {
  return [...form.elements].filter(field => field.name);
}

function writeAddress(form) {
  form.dataset.used = "yes";
  const query = new URLSearchParams();
  for (const one of forms.filter(one => one.dataset.used)) {
    for (const field of fieldsOf(one)) if (field.value) query.set(`${one.dataset.view}.${field.name}`, field.value);
  }
  const text = query.toString();
  history.replaceState(null, "", `#${form.closest("section").id}${text && "?" + text}`);
}

function readAddress() {
  const [place, text] = location.hash.slice(1).split("?");
  if (text) {
    const query = new URLSearchParams(text);
    for (const form of forms) {
      const name = form.dataset.view;
      const values = Object.fromEntries(fieldsOf(form).map(field => [field.name, query.get(`${name}.${field.name}`) || ""]));
      if (Object.values(values).some(Boolean)) form.dataset.used = "yes";
      views[name].fill(values);
    }
  }
  const target = place && document.getElementById(decodeURIComponent(place));
  if (target) reveal(target);
}

// A number leads into folded or filtered parts of the page: show them on the way.
function reveal(target) {
  for (let part = target; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
    if (part.hidden) forms.filter(form => document.getElementById(form.dataset.list)?.contains(part)).forEach(form => views[form.dataset.view].fill({}));
  }
  target.scrollIntoView({ block: "start" });
}

function listView(form) {
  const list = document.getElementById(form.dataset.list), whole = [...list.children];
  const items = whole.filter(item => item.tagName !== "H3"), titles = whole.filter(item => item.tagName === "H3");
  const words = new Map(items.map(item => [item, `${item.id} ${(item.querySelector("summary") || item).textContent}`.toLowerCase()]));
  const buttons = [...list.parentElement.querySelectorAll("thead th[data-key]")].map(head => sortButton(form, head));

  function wanted(item) {
    const text = form.elements.words.value.toLowerCase().split(/\s+/);
    return fieldsOf(form).every(field => {
      if (!("filter" in field.dataset) || !field.value) return true;
      const value = item.dataset[field.name];
      return field.dataset.filter === "word" ? value.split("; ").includes(field.value) : value === field.value;
    }) && text.every(word => words.get(item).includes(word));
  }

  function show() {
    const order = form.elements.order.value, key = order.replace(/^-/, "");
    for (const item of items) item.hidden = !wanted(item);
    const shown = items.filter(item => !item.hidden);
    for (const title of titles) title.hidden = Boolean(order) || !shown.some(item => item.dataset.section === title.dataset.section);
    list.append(...(order ? [...titles, ...sorted(items, key, order !== key)] : whole));
    for (const head of buttons) head.setAttribute("aria-sort", head.dataset.key !== key ? "none" : order === key ? "ascending" : "descending");
    form.querySelector("output").textContent = `${shown.length} of ${items.length}`;
  }

  function fill(values) {
    for (const field of fieldsOf(form)) field.value = values[field.name] || "";
    show();
  }

  onChoice(form, () => { show(); writeAddress(form); });
  form.addEventListener("reset", event => { event.preventDefault(); fill({}); writeAddress(form); });
  return { fill, show };
}

// Not every browser reports a choice in a list as input.
function onChoice(form, act) {
  for (const type of ["input", "change"]) form.addEventListener(type, act);
}

// Items without a value come last in either direction.
function sorted(items, key, falling) {
  const value = item => item.dataset[key] === undefined ? NaN : Number(item.dataset[key]);
  const numeric = items.some(item => Number.isFinite(value(item)));
  const compare = (a, b) => numeric ? value(a) - value(b) : a.dataset[key].localeCompare(b.dataset[key]);
  const [has, lacks] = [items.filter(item => !numeric || !Number.isNaN(value(item))), items.filter(item => numeric && Number.isNaN(value(item)))];
  return [...has.sort((a, b) => falling ? compare(b, a) : compare(a, b)), ...lacks];
}

function sortButton(form, head) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => {
    const order = form.elements.order;
    order.value = order.value === head.dataset.key ? "-" + head.dataset.key : head.dataset.key;
    views[form.dataset.view].show();
    writeAddress(form);
  });
  head.append(button);
  return head;
}

function start() {
  for (const form of forms) {
    form.hidden = false;
    form.addEventListener("submit", event => event.preventDefault());
    const name = form.dataset.view;
    views[name] = form.dataset.list ? listView(form) : pairView(form);
    views[name].show();
  }
  addEventListener("hashchange", readAddress);
  readAddress();
}
