"""How large the pages of latents and prompts are at a large size, and how long a real browser takes to open them.

The tables of stage explain are made up: every latent with examples, all prompts with their tokens, and the test prompts
with contributions. Needs Chromium (Debian: apt install chromium).
"""

import argparse
import json
import shutil
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from playwright.sync_api import sync_playwright

from pipeline.judging.arm import ArmId
from pipeline.latents.tables import CONTRIBUTIONS, EXAMPLES, LATENTS, PROMPTS
from pipeline.prompts.sample import sample_prompts
from pipeline.report.browser import write_latents, write_prompts
from pipeline.report.page import write_page

CLUSTERS = [f"cluster {number}" for number in range(6)]
SOURCES = [f"source/number {number}" for number in range(25)]
MOST_USED, EXAMPLES_A_KIND, MORE_EXAMPLES = 256, 5, 10  # as in stage explain
TEST_SHARE, ARMS, REPEATS = 0.2, 25, 3
NAME = "point/variant"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--prompts", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--latents", type=int, default=16_384, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder)
        write(report, options.prompts, options.latents)
        size = sum(file.stat().st_size for file in report.rglob("*") if file.is_file()) / 1e6
        seconds = opened(report / "browse" / NAME)
    result = {"prompts": options.prompts, "latents": options.latents, "mb": round(size, 1), "seconds": seconds}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def write(report: Path, prompts: int, latents: int) -> None:
    folder = report / "browse" / NAME
    rng = np.random.default_rng(0)
    texts = [text.replace(" ", "| ").split("|") for text in sample_prompts(prompts, 0)["prompt"].to_pylist()]
    ids = [f"{number:016x}" for number in rng.integers(0, 2**60, prompts)]
    whole = dict(zip(ids, ("".join(text) for text in texts), strict=True))
    tested = rng.permutation(prompts)[: round(prompts * TEST_SHARE)]
    sides = np.where(np.isin(np.arange(prompts), tested), "test", "train")
    of_prompts = {
        "prompt_id": ids,
        "side": sides,
        "cluster": rng.integers(0, 6, prompts),
        "source": rng.choice(SOURCES, prompts),
        "tokens": texts,
        "counted": [[True] * len(text) for text in texts],
    }
    meta = {"point": "point", "variant": "variant", "clusters": CLUSTERS, "sources": SOURCES, "target": 3}
    meta["counts"] = {"clusters": [1] * len(CLUSTERS), "sources": [1] * len(SOURCES)}
    meta |= {"pooling": "mean", "bias": {"sae": 0.1, "dense": -0.2}}
    write_latents(folder / "data", made_latents(rng, latents, texts), made_examples(rng, latents, texts), meta)
    arms = [ArmId("tfidf"), ArmId("dense", ("point",)), ArmId("sae", ("point",), "variant")]
    arms += [ArmId(f"arm {number}", ("point",)) for number in range(ARMS)]
    write_prompts(
        folder / "data",
        made(PROMPTS, of_prompts),
        made_contributions(rng, np.sort(tested), texts),
        {arm: rng.random(prompts) for arm in arms},
        ids,
        whole,
        meta,
    )
    for page in ("latents.html", "prompts.html"):
        write_page(folder / page, page, root="../../../", saes=[{"name": NAME}], name=NAME, final_norm=True)
    shutil.copytree(str(files("pipeline.report") / "assets"), report / "assets")


def made(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    return pa.table([pa.array(list(columns[field.name]), field.type) for field in schema], schema=schema)


def made_latents(rng: np.random.Generator, count: int, texts: list[list[str]]) -> pa.Table:
    words = np.array(sorted({token for text in texts for token in text}))

    def pairs(size: int) -> list[list[tuple[str, float]]]:
        return [list(zip(rng.choice(words, size), rng.normal(size=size), strict=True)) for _ in range(count)]

    columns: dict[str, Any] = {field.name: rng.random(count) for field in LATENTS}
    columns |= {"latent": range(count), "weight": rng.normal(size=count), "mean_contribution": rng.normal(size=count)}
    columns |= {"cluster_rates": rng.random((count, 6)).tolist(), "source_rates": rng.random((count, 25)).tolist()}
    columns |= {name: pairs(8) for name in ("tokens", "promotes", "suppresses")}
    near = rng.integers(0, count, (count, 5))
    columns["neighbours"] = [[(int(other), rng.random()) for other in row] for row in near]
    return made(LATENTS, columns)


def made_examples(rng: np.random.Generator, latents: int, texts: list[list[str]]) -> pa.Table:
    rows = []
    for latent in range(latents):
        for kind in ("top", "quantile"):
            for _ in range(MORE_EXAMPLES if latent < MOST_USED else EXAMPLES_A_KIND):
                prompt = int(rng.integers(len(texts)))
                count = min(len(texts[prompt]), int(rng.geometric(0.3)))
                places = np.sort(rng.permutation(len(texts[prompt]))[:count])
                values = rng.exponential(size=count).astype(np.float32)
                rows.append((latent, kind, None, prompt, values.max(), places.tolist(), values.tolist()))
    return made(EXAMPLES, dict(zip(EXAMPLES.names, zip(*rows, strict=True), strict=True)))


def made_contributions(rng: np.random.Generator, tested: np.ndarray, texts: list[list[str]]) -> pa.Table:
    columns: dict[str, Any] = {"prompt": tested, "sae_logit": rng.normal(size=len(tested))}
    columns["dense_logit"] = rng.normal(size=len(tested))
    for name in ("sae_tokens", "dense_tokens"):
        columns[name] = [rng.normal(size=len(texts[prompt])).tolist() for prompt in tested]
    columns["latents"] = [[(int(rng.integers(16_384)), rng.normal()) for _ in range(12)] for _ in tested]
    return made(CONTRIBUTIONS, columns)


def opened(folder: Path) -> dict[str, float]:
    """Seconds from the address to a page that is drawn, the median of some times, each in a window of its own."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for address in ("latents.html", "latents.html#latent=100", "prompts.html"):
            times = []
            for _ in range(REPEATS):
                page = browser.new_context().new_page()
                start = time.perf_counter()
                page.goto(f"file://{folder}/{address}")
                page.wait_for_selector("body[data-ready]")
                times.append(time.perf_counter() - start)
                page.context.close()
            found[address] = round(sorted(times)[REPEATS // 2], 2)
        browser.close()
    return found


if __name__ == "__main__":
    main()
