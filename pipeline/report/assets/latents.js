"use strict";

(async () => {
  const at = (id) => document.getElementById(id);
  const [index, prompts] = await Promise.all([load("latents"), load("prompts")]);
  const all = index.weight.map((_, latent) => latent);
  const separation = (latent) => index.mean_contribution[latent];
  const columns = [
    { name: "latent", key: (latent) => latent, first: 1, css: "text" },
    { name: "separation", key: (latent) => Math.abs(separation(latent)), title: "what it adds to the difference of the classes' mean logits; sorted by size" },
    { name: "weight", key: (latent) => Math.abs(index.weight[latent]), title: "sorted by size" },
    { name: "density", key: (latent) => index.density[latent], title: "share of train tokens on which it is active" },
    { name: "targets", key: (latent) => index.rate_target[latent], title: "share of target test prompts in which it is active" },
    { name: "others", key: (latent) => index.rate_other[latent], title: "share of other test prompts in which it is active" },
    { name: "difference", key: (latent) => index.rate_target[latent] - index.rate_other[latent], title: "targets minus others" },
    { name: "source spread", key: (latent) => index.source_spread[latent], title: "0: active in one source, 1: equally often in all" },
    { name: "stability", key: (latent) => index.stability[latent], title: "share of resamples whose k = 16 probe chooses it" },
    { name: "tokens", key: (latent) => index.tokens[latent].join(" "), first: 1, css: "text" },
  ];
  const row = (latent) => element("tr", { "data-id": latent },
    element("th", { scope: "row" }, element("a", { href: `#latent=${latent}` }, String(latent))),
    element("td", {}, signed(separation(latent))), element("td", {}, signed(index.weight[latent])),
    element("td", {}, percent(index.density[latent])), element("td", {}, percent(index.rate_target[latent])),
    element("td", {}, percent(index.rate_other[latent])),
    element("td", {}, percent(index.rate_target[latent] - index.rate_other[latent])),
    element("td", {}, figure(index.source_spread[latent], 2)), element("td", {}, figure(index.stability[latent], 2)),
    element("td", { class: "text" }, ...index.tokens[latent].flatMap((token) => [element("span", { class: "word" }, ...framed(token)), " "])));
  const table = new LongTable(at("latents"), at("more"), columns, row);

  const kinds = {
    alive: (latent) => index.max_activation[latent] > 0,
    dead: (latent) => !(index.max_activation[latent] > 0),
    stable: (latent) => index.stability[latent] > 0,
    target: (latent) => separation(latent) > 0,
    other: (latent) => separation(latent) < 0,
  };
  const filter = () => {
    const words = at("search").value.toLowerCase();
    const found = all.filter(kinds[at("which").value])
      .filter((latent) => index.tokens[latent].some((token) => token.toLowerCase().includes(words)) || !words);
    at("found").textContent = `${found.length} of ${all.length} latents`;
    table.show(found);
  };
  table.sorted = columns[1];
  at("which").onchange = at("search").oninput = filter;
  at("number").onchange = () => { if (at("number").value) location.hash = `latent=${at("number").value.trim()}`; };
  at("controls").onsubmit = (event) => event.preventDefault();

  async function example(latent, [, prompt, activation, positions, values]) {
    const tokens = await loadRow("texts", prompt, prompts.file.texts);
    const shown = new Map(positions.map((position, place) => [position, values[place]]));
    const peak = positions[values.indexOf(Math.max(...values))];
    const first = Math.max(0, peak - 24), last = Math.min(tokens.length, peak + 12);
    const spans = tokenSpans(tokens.slice(first, last), tokens.slice(first, last).map((_, place) => shown.get(first + place)), index.max_activation[latent]);
    if (first) spans.unshift("… ");
    if (last < tokens.length) spans.push(" …");
    const cluster = prompts.clusters[prompt];
    const where = cluster < 0 ? "harmless" : prompts.names[cluster];
    const link = prompts.contributions[prompt] === null ? prompts.ids[prompt]
      : element("a", { href: `prompts.html#prompt=${encodeURIComponent(prompts.ids[prompt])}` }, prompts.ids[prompt]);
    return element("div", {},
      element("p", { class: "note" }, `${short(activation)} · ${where} · `, ...framed(prompts.sources[prompt]), ` · ${prompts.sides[prompt]} · `, link),
      promptBox(spans, cluster === prompts.target, `example, activation ${short(activation)}`));
  }

  function rates(title, names, values, counts) {
    const body = element("tbody");
    names.forEach((name, place) => {
      const bar = element("span", { class: "bar" });
      bar.style.width = `${Math.round(values[place] * 100)}px`;
      body.append(element("tr", {}, element("th", { scope: "row" }, ...framed(name)), element("td", {}, percent(counts[place] ? values[place] : null)), element("td", { class: "text" }, bar)));
    });
    return element("div", {}, element("h3", {}, title), element("div", { class: "scroll" }, element("table", {}, body)));
  }

  async function open(text) {
    const latent = Number(text);
    if (!Number.isInteger(latent) || !(latent >= 0 && latent < all.length)) throw new Error(`There is no latent ${text}: they are numbered 0 to ${all.length - 1}.`);
    const detail = await loadRow("latents", latent, index.file);
    const of = async (kind) => Promise.all(detail.examples.filter((entry) => entry[0] === kind).map((entry) => example(latent, entry)));
    const [top, quantile] = [await of("top"), await of("quantile")];
    const near = element("ul");
    for (const [other, cosine] of detail.neighbours ?? []) near.append(element("li", {}, element("a", { href: `#latent=${other}` }, String(other)), ` ${figure(cosine, 2)}`));
    return [
      element("h2", {}, `Latent ${latent}`),
      element("p", {}, `Weight ${signed(index.weight[latent], 4)} on the ${index.pooling} of its activations; separation ${signed(separation(latent))}; ` +
        `active on ${percent(index.density[latent])} of tokens, in ${percent(index.rate_target[latent])} of target and ${percent(index.rate_other[latent])} of other test prompts; ` +
        `largest activation ${short(index.max_activation[latent])}; source spread ${figure(index.source_spread[latent], 2)}; stability ${figure(index.stability[latent], 2)}.`),
      element("div", { class: "columns" },
        wordList("Specific to tokens (BM25)", detail.tokens), wordList("Promotes (logits, direct)", detail.promotes),
        wordList("Suppresses (logits, direct)", detail.suppresses), element("div", {}, element("h3", {}, "Nearest latents (cosine)"), near)),
      element("div", { class: "columns" }, rates("Prompts of each cluster in which it is active", index.clusters, detail.clusters, index.counts.clusters),
        rates("Prompts of each source in which it is active", index.sources, detail.sources, index.counts.sources)),
      element("h3", {}, "Prompts that activate it most"), ...(top.length ? top : [element("p", { class: "note" }, "It is never active.")]),
      element("h3", {}, "Prompts at quantiles of its activation"), ...quantile,
    ];
  }

  filter();
  await onHash("latent", open, table, at("detail"));
  document.body.dataset.ready = "yes";
})().catch((error) => { document.getElementById("found").textContent = error.message; });
