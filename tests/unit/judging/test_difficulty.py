"""Test prompts that are hard by what no arm decides: words that speak for the other class, distance from train."""

from itertools import pairwise

import numpy as np
import pytest
from boards import board_of

from pipeline.judging.arm import ArmId
from pipeline.judging.comparisons.difficulty import by_similarity, hard, within_templates
from pipeline.judging.metrics import value_of

WORDS, MEANING, OTHER = ArmId("tfidf"), ArmId("dense", ("p",)), ArmId("sae", ("p",), "v")
COUNT, TRAIN = 400, 600
rng = np.random.default_rng(0)


def texts_of(topics: np.ndarray) -> list[str]:
    """Ten of the thirty words of a topic each."""
    return [" ".join(f"w{topic}x{place}" for place in rng.permutation(30)[:10]) for topic in topics]


def test_hard_prompts_have_words_of_the_other_class_whatever_arms_say() -> None:
    """Three in four prompts of topic 0 are targets, three in four of topic 1 are not: the others are hard."""
    labels = np.arange(COUNT) % 2 == 0
    usual = np.arange(COUNT) % 4 < 2
    train = np.arange(TRAIN) % 2 == 0
    topics = np.concatenate([np.where(train, 0, 1), np.where(labels == usual, 0, 1)])
    texts = texts_of(topics)
    by_words = np.where(topics[TRAIN:] == 0, 0.8, 0.2) + rng.normal(0, 0.1, COUNT)
    noisy = {arm: np.where(labels, 0.7, 0.3) + rng.normal(0, 0.25, COUNT) for arm in (MEANING, OTHER)}
    found = hard(board_of({WORDS: by_words} | noisy, labels, texts=texts))
    assert (found["prompts"], found["targets"]) == (100, 50)
    assert found["text"]["tfidf"]["auroc"] < 0.1
    for arm, scores in noisy.items():
        everywhere = value_of("auroc", labels, scores)
        assert found["p"][arm.key]["auroc"] == pytest.approx(everywhere, abs=0.08), "its own errors do not choose them"


def test_arms_on_fifths_by_similarity_to_train() -> None:
    labels = np.arange(COUNT) % 2 == 0
    nearest = rng.permutation(COUNT) / COUNT
    scores = np.where(rng.random(COUNT) < nearest, labels, ~labels).astype(float) * 0.8 + 0.1
    scores += rng.random(COUNT) / 100
    found = by_similarity(board_of({WORDS: scores}, labels, nearest=nearest))
    assert list(found) == list("12345") and sum(each["prompts"] for each in found.values()) == COUNT
    assert all(78 <= each["prompts"] <= 82 for each in found.values())
    aurocs = [each["text"]["tfidf"]["auroc"] for each in found.values()]
    assert aurocs == sorted(aurocs) and aurocs[0] < 0.3 and aurocs[-1] > 0.8
    edges = [each["similarity"] for each in found.values()]
    assert all(one["high"] <= other["low"] for one, other in pairwise(edges))
    assert edges[2]["median"] == pytest.approx(0.5, abs=0.02)


def test_fifths_with_equal_similarity_are_one_and_those_of_one_class_none() -> None:
    labels = np.arange(COUNT) % 2 == 0
    found = by_similarity(board_of({WORDS: labels * 0.5}, labels, nearest=np.where(labels, 0.9, 0.1)))
    assert not [each for each in found.values() if "text" not in each]
    found = by_similarity(board_of({WORDS: labels * 0.5}, labels, nearest=np.full(COUNT, 0.5)))
    assert [each["prompts"] for each in found.values()] == [COUNT]


def test_within_a_template_only_the_payload_counts() -> None:
    """An arm that knows which template is harmful is right between templates, and guesses within one."""
    labels = np.concatenate([np.arange(100) % 10 > 0, np.arange(100) % 10 == 0, np.arange(200) % 2 == 0])
    templates = np.array(["bad"] * 100 + ["good"] * 100 + [""] * 196 + ["tiny"] * 4)
    frame = np.select([templates == "bad", templates == "good"], [0.9, 0.1], 0.5) + rng.random(COUNT) / 100
    payload = np.where(labels, 0.6, 0.4) + rng.normal(0, 0.05, COUNT)
    found = within_templates(board_of({WORDS: frame, MEANING: payload}, labels, templates=templates))
    assert (found["templates"], found["prompts"], found["targets"]) == (2, 200, 100)
    assert found["text"]["tfidf"]["auroc"] == pytest.approx(0.5, abs=0.2)
    assert found["p"]["dense"]["auroc"] > 0.97 > found["p"]["dense"]["auroc_std"] >= 0
    assert within_templates(board_of({WORDS: frame}, labels)) == {"templates": 0, "prompts": 0, "targets": 0}
