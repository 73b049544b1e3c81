"use strict";

(async () => {
  const at = (id) => document.getElementById(id);
  const index = await load("prompts");
  const scored = index.ids.map((_, row) => row).filter((row) => index.scores[row]);
  const arms = Object.fromEntries(index.arms.map((arm, place) => [arm, place]));
  const isTarget = (row) => index.clusters[row] === index.target;
  const isHarmless = (row) => index.clusters[row] < 0;
  const score = (row, arm) => index.scores[row][arms[arm]];
  const isWrong = (row, arm) => (score(row, arm) >= 0.5) !== isTarget(row);
  const { sae, dense } = index.own;
  const name = (row) => (isHarmless(row) ? "harmless" : index.names[index.clusters[row]]);
  const snippet = (row) => index.snippets[row];

  for (const arm of index.arms) at("arm").append(element("option", { value: arm }, arm));
  at("arm").value = "tfidf";
  const columns = [
    { name: "prompt", key: (row) => index.ids[row], first: 1, css: "text" },
    { name: "cluster", key: name, first: 1, css: "text" },
    { name: "source", key: (row) => index.sources[row], first: 1, css: "text wide" },
    { name: "SAE", key: (row) => score(row, sae), title: `probability of ${sae}` },
    { name: "dense", key: (row) => score(row, dense), title: `probability of ${dense}` },
    { name: "arm", key: (row) => score(row, at("arm").value), title: "probability of the arm chosen above" },
    { name: "text", key: snippet, first: 1, css: "text" },
  ];
  const mark = (row, arm) => `${figure(score(row, arm), 2)}${isWrong(row, arm) ? " ✗" : ""}`;
  const draw = (row) => element("tr", { "data-id": index.ids[row] },
    element("th", { scope: "row" }, element("a", { href: `#prompt=${encodeURIComponent(index.ids[row])}` }, index.ids[row])),
    element("td", { class: "text" }, name(row)), element("td", { class: "text wide" }, ...framed(index.sources[row])),
    element("td", {}, mark(row, sae)), element("td", {}, mark(row, dense)), element("td", {}, mark(row, at("arm").value)),
    element("td", { class: "text" }, hide(element("span", { class: "word" }, ...framed(snippet(row))), isTarget(row))));
  const table = new LongTable(at("prompts"), at("more"), columns, draw);
  const kinds = {
    all: () => true,
    missed: (row) => isTarget(row) && isWrong(row, sae),
    alarms: (row) => !isTarget(row) && isWrong(row, sae),
    dense: (row) => isWrong(row, dense) && !isWrong(row, sae),
    sae: (row) => isWrong(row, sae) && !isWrong(row, dense),
    benign: isHarmless,
  };
  const filter = () => {
    const words = at("search").value.toLowerCase();
    const found = scored.filter(kinds[at("which").value])
      .filter((row) => [snippet(row), index.ids[row], index.sources[row]].some((text) => text.toLowerCase().includes(words)));
    at("found").textContent = `${found.length} of ${scored.length} prompts`;
    table.show(found);
  };
  table.sorted = columns[3];
  at("which").onchange = at("arm").onchange = at("search").oninput = filter;
  at("controls").onsubmit = (event) => event.preventDefault();

  function bar(value, largest) {
    const made = element("span", { class: value < 0 ? "bar against" : "bar for" });
    made.style.width = `${Math.round((Math.abs(value) / (largest || 1)) * 120)}px`;
    return made;
  }

  function contributions(parts) {
    const listed = parts.latents.reduce((sum, [, value]) => sum + value, 0);
    const rest = parts.sae.logit - index.bias.sae - listed;
    const rows = [...parts.latents.map(([latent, value]) => [element("a", { href: `latents.html#latent=${latent}` }, `latent ${latent}`), value]),
      ["all other latents", rest], ["constant", index.bias.sae], ["logit", parts.sae.logit]];
    const largest = Math.max(...rows.map(([, value]) => Math.abs(value)));
    const body = element("tbody");
    for (const [what, value] of rows) body.append(element("tr", {}, element("th", { scope: "row" }, what), element("td", {}, signed(value)), element("td", { class: "text" }, bar(value, largest))));
    return element("div", {}, element("h3", {}, "What latents add to the SAE classifier's logit"), element("div", { class: "scroll" }, element("table", { id: "contributions" }, body)));
  }

  function byToken(title, which, parts, tokens, row) {
    const { logit, tokens: values } = parts[which];
    const sum = values.reduce((total, value) => total + value, 0);
    const largest = Math.max(...values.map(Math.abs));
    return element("div", { id: `tokens-${which}` }, element("h3", {}, title),
      element("p", { class: "note" }, `tokens ${signed(sum)}, constant ${signed(index.bias[which])}: logit ${signed(logit)}. Orange speaks for the target, blue against it.`),
      promptBox(tokenSpans(tokens, values, largest), isTarget(row), title));
  }

  async function open(id) {
    const row = index.ids.indexOf(id);
    if (row < 0 || index.contributions[row] === null) throw new Error(`There is no scored prompt ${id}.`);
    const [tokens, parts] = await Promise.all([loadRow("texts", row, index.file.texts), loadRow("contributions", index.contributions[row], index.file.contributions)]);
    const body = element("tbody");
    const ordered = [...index.arms].sort((a, b) => score(row, b) - score(row, a));
    for (const arm of ordered) body.append(element("tr", {}, element("th", { scope: "row" }, arm), element("td", {}, mark(row, arm))));
    return [
      element("h2", {}, `Prompt ${id}`), element("p", {}, `${name(row)} · `, ...framed(index.sources[row]), ` · ${index.sides[row]}`),
      byToken("SAE classifier", "sae", parts, tokens, row), byToken("Dense probe", "dense", parts, tokens, row),
      element("div", { class: "columns" }, contributions(parts),
        element("div", {}, element("h3", {}, "Probability of the target in each arm"), element("div", { class: "scroll" }, element("table", { id: "scores" }, body)))),
    ];
  }

  filter();
  await onHash("prompt", open, table, at("detail"));
  document.body.dataset.ready = "yes";
})().catch((error) => { document.getElementById("found").textContent = error.message; });
