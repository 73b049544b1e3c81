"use strict";
// What all pages share. Texts of prompts and tokens reach a page through textContent alone.

const received = new Map(), awaited = new Map();

// Called by the scripts in data/.
function receive(name, value) {
  received.set(name, value);
  awaited.get(name)?.resolve(value);
}

// The value of data/<name>.js, loaded once.
function load(name) {
  if (received.has(name)) return Promise.resolve(received.get(name));
  if (!awaited.has(name)) {
    const waiting = Promise.withResolvers ? Promise.withResolvers() : {};
    if (!waiting.promise) waiting.promise = new Promise((resolve, reject) => Object.assign(waiting, { resolve, reject }));
    awaited.set(name, waiting);
    const script = element("script", { src: `data/${name}.js` });
    script.onerror = () => waiting.reject(new Error(`data/${name}.js is missing: make the report again`));
    document.head.append(script);
  }
  return awaited.get(name).promise;
}

// One row of those that are kept in files of `size` rows.
async function loadRow(name, number, size) {
  return (await load(`${name}-${Math.floor(number / size)}`))[number % size];
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// A text with a frame around the names of what cannot be seen, as `visible` of pipeline/core/text.py writes them.
function framed(text) {
  return text.split(/(<U\+[0-9A-F]{4,6}>)/).map((part, place) => (place % 2 ? element("span", { class: "unseen" }, part) : part));
}

const figure = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
const signed = (value, digits = 3) => (value > 0 ? "+" : "") + figure(value, digits);
const short = (value) => (value === null || value === undefined ? "–" : String(Number(Number(value).toPrecision(3))));
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value && Math.abs(value) < 0.01 ? 2 : 1)} %`);

// The tokens of a prompt, each coloured by its value: orange for positive, blue for negative ones.
function tokenSpans(tokens, values, largest) {
  return tokens.map((token, place) => {
    const value = values[place] || 0;
    const span = element("span", { class: "token", title: value ? short(value) : null }, ...framed(token));
    const strength = Math.min(Math.abs(value) / (largest || 1), 1) * 0.6;
    if (value) span.style.backgroundColor = value > 0 ? `rgb(213 94 0 / ${strength})` : `rgb(0 114 178 / ${strength})`;
    return span;
  });
}

// A prompt in a frame; an offensive one is blurred until it is clicked.
function promptBox(spans, isOffensive, label) {
  return hide(element("div", { class: "prompt", tabindex: 0, role: "group", "aria-label": label }, ...spans), isOffensive);
}

// An offensive text is a button until it is shown.
function hide(box, isOffensive) {
  if (!isOffensive) return box;
  box.classList.add("offensive");
  box.tabIndex = 0;
  box.setAttribute("role", "button");
  box.setAttribute("aria-label", "offensive text, press to show it");
  return box;
}

function reveal(box) {
  box.classList.add("shown");
  box.removeAttribute("role");
  box.removeAttribute("aria-label");
}

function wordList(title, pairs, digits = 2) {
  const missing = pairs ? "none" : "the model has no head to read";
  const list = element("ul", {});
  for (const [word, value] of pairs ?? []) {
    list.append(element("li", {}, element("span", { class: "word" }, ...framed(word)), ` ${figure(value, digits)}`));
  }
  return element("div", {}, element("h3", {}, title), pairs?.length ? list : element("p", { class: "note" }, missing));
}

// A table of which the first rows are drawn, more on request; a row opens by its link, arrows go from link to link.
class LongTable {
  constructor(table, more, columns, draw, page = 50) {
    Object.assign(this, { body: table.tBodies[0], more, columns, draw, page, sorted: null, rows: [], drawn: 0 });
    const head = element("tr");
    for (const column of columns) {
      const button = element("button", { type: "button", title: column.title ?? null }, column.name);
      button.onclick = () => this.sortBy(column, this.sorted === column ? -this.direction : column.first ?? -1);
      column.head = element("th", { scope: "col", class: column.css }, button);
      head.append(column.head);
    }
    table.tHead.append(head);
    more.onclick = () => this.drawMore();
    this.body.addEventListener("keydown", (event) => {
      const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      const next = step && event.target.closest("tr")?.[step]?.querySelector("a");
      if (next) { event.preventDefault(); next.focus(); }
    });
  }

  show(rows) { this.rows = rows; this.sortBy(this.sorted ?? this.columns[0], this.direction ?? -1); }

  sortBy(column, direction) {
    this.sorted?.head.removeAttribute("aria-sort");
    Object.assign(this, { sorted: column, direction });
    column.head.setAttribute("aria-sort", direction < 0 ? "descending" : "ascending");
    const key = column.key;
    this.rows.sort((a, b) => {
      const x = key(a), y = key(b);
      return (x < y ? -direction : x > y ? direction : 0) || a - b;
    });
    this.body.replaceChildren();
    this.drawn = 0;
    this.drawMore();
  }

  drawMore() {
    this.body.append(...this.rows.slice(this.drawn, this.drawn + this.page).map(this.draw));
    this.drawn = Math.min(this.drawn + this.page, this.rows.length);
    this.more.hidden = this.drawn === this.rows.length;
    this.mark(this.marked ?? null);
  }

  mark(id) {
    this.marked = id;
    for (const row of this.body.rows) row.setAttribute("aria-current", row.dataset.id === id);
  }
}

// `open` is called with what stands after #name= whenever it changes; Close or Escape goes back to the table's link.
function onHash(name, open, table, detail) {
  const close = element("button", { type: "button", class: "close" }, "Close");
  close.onclick = () => {
    const link = table.body.querySelector("tr[aria-current=true] a");
    location.hash = "";
    (link ?? table.body.querySelector("a"))?.focus();
  };
  const asked = () => new URLSearchParams(location.hash.slice(1)).get(name);
  const read = async () => {
    const value = asked();
    detail.hidden = value === null;
    table.mark(value);
    if (value === null) return;
    const parts = await open(value).catch((error) => [element("p", { class: "warning" }, error.message)]);
    if (asked() !== value) return; // another one was asked for meanwhile
    detail.replaceChildren(close, ...parts);
    detail.focus({ preventScroll: true });
    detail.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", read);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !detail.hidden) close.click();
  });
  return read();
}

document.addEventListener("click", (event) => {
  const box = event.target.closest(".offensive");
  if (box) reveal(box);
});
document.addEventListener("keydown", (event) => {
  if (!["Enter", " "].includes(event.key) || !event.target.matches?.(".offensive:not(.shown)")) return;
  event.preventDefault();
  reveal(event.target);
});

(() => {
  const button = document.getElementById("reveal");
  let shown = false;
  try { shown = localStorage.getItem("reveal") === "yes"; } catch { /* storage is switched off */ }
  const apply = () => {
    document.body.classList.toggle("reveal", shown);
    button.setAttribute("aria-pressed", shown);
    button.textContent = shown ? "Blur offensive text" : "Show offensive text";
  };
  button.onclick = () => {
    shown = !shown;
    try { localStorage.setItem("reveal", shown ? "yes" : "no"); } catch { /* as above */ }
    apply();
  };
  apply();
  for (const box of document.querySelectorAll(".offensive")) hide(box, true);
})();
