"""How often labels are wrong, from near-copies with other labels."""

import numpy as np
import pytest

from pipeline.judging.label_noise import label_noise
from pipeline.prompts.table import Prompts

NOISE = 0.07
rng = np.random.default_rng(0)


def text(number: int) -> str:
    """About 30 words that no other number has."""
    return " ".join(f"{number}x{place}" for place in range(30))


def prompts_of(
    texts: list[str], labels: np.ndarray, groups: np.ndarray, templates: np.ndarray | None = None
) -> Prompts:
    count = len(texts)
    names = [str(number) for number in range(count)]
    templates = np.full(count, "") if templates is None else templates
    some = np.array(names)
    return Prompts(names, texts, some, labels.astype(int), groups, some, 1, 0, templates, np.full(count, np.nan))


def noise_of(prompts: Prompts) -> dict[str, float]:
    return label_noise(prompts, np.ones(len(prompts.ids), dtype=bool), 0.95)


def copies(groups: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Texts and true labels: those of a group are the same but for their ends."""
    truth = rng.random(groups.max() + 1) < 0.5
    return [text(group) + "!" * (number % 3) for number, group in enumerate(groups)], truth[groups]


def flipped(labels: np.ndarray) -> np.ndarray:
    return labels ^ (rng.random(len(labels)) < NOISE)


def test_label_noise_is_that_which_was_put_in() -> None:
    groups = np.repeat(np.arange(1500), 2)
    texts, truth = copies(groups)
    found = noise_of(prompts_of(texts, flipped(truth), groups))
    assert found["pairs"] == found["groups"] == 1500
    assert found["error_rate"] == pytest.approx(NOISE, abs=0.02)
    assert found["error_rate_low"] < NOISE < found["error_rate_high"] < found["error_rate_low"] + 0.04


def test_large_groups_and_templates_do_not_bias_it() -> None:
    """Prompts of one group that are no copies have other labels, and so do the payloads of a template."""
    pairs = np.repeat(np.arange(600), 2)
    texts, truth = copies(pairs)
    labels = flipped(truth)
    clean = noise_of(prompts_of(texts, labels, pairs))
    apart, framed = 300, 200
    texts += [text(1000 + number) for number in range(apart)]  # a chain
    texts += [f"{text(5000)} {text(5001)} p{number}" for number in range(framed)]  # a template
    groups = np.concatenate([pairs, np.full(apart, 700), np.full(framed, 701)])
    templates = np.array([""] * (len(texts) - framed) + ["frame"] * framed)
    labels = np.concatenate([labels, rng.random(apart + framed) < 0.5])
    assert noise_of(prompts_of(texts, labels, groups, templates)) == clean
    # one group of many true copies whose labels are half wrong weighs as much as one pair
    texts += [text(9000) for _ in range(400)]
    groups = np.concatenate([groups, np.full(400, 702)])
    labels = np.concatenate([labels, np.arange(400) % 2 == 0])
    templates = np.concatenate([templates, np.full(400, "")])
    found = noise_of(prompts_of(texts, labels, groups, templates))
    assert found["groups"] == 601 and found["pairs"] == 600 + 10_000
    assert found["error_rate"] == pytest.approx(clean["error_rate"], abs=0.002)
    again = noise_of(prompts_of(texts, labels, groups, templates))
    assert again == found, "pairs are drawn the same way each time"


def test_the_interval_covers_also_with_few_groups_of_unequal_size() -> None:
    covered = 0
    for _ in range(150):
        groups = np.repeat(np.arange(30), np.minimum(2 + rng.geometric(0.5, 30), 8))
        texts, truth = copies(groups)
        found = noise_of(prompts_of(texts, flipped(truth), groups))
        covered += found["error_rate_low"] <= NOISE <= found["error_rate_high"]
    assert covered / 150 >= 0.93


def test_without_copies_nothing_is_known_and_few_that_agree_prove_little() -> None:
    groups = np.arange(20)
    texts, truth = copies(groups)
    nothing = noise_of(prompts_of(texts, truth, groups))
    assert nothing["groups"] == nothing["pairs"] == 0 and np.isnan(nothing["error_rate"])
    texts, truth = copies(np.repeat(groups[:5], 2))
    few = noise_of(prompts_of(texts, truth, np.repeat(groups[:5], 2)))
    assert (few["error_rate"], few["error_rate_low"]) == (0, 0) and few["error_rate_high"] > 0.1
