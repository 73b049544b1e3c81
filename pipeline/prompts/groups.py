"""Group prompts that must stay on one side of a split: near-duplicates, word-shuffled copies and templates."""

from dataclasses import dataclass

import numpy as np

from pipeline.prompts.item_sets import ItemSets
from pipeline.prompts.items import number_words, shingle_sets, word_sets, words_of
from pipeline.prompts.near_duplicates import join, near_duplicate_groups
from pipeline.prompts.templates import template_of

COPY = 0.9  # similarity from which a join is never cut
STEPS = 7  # thresholds from there to the one of a rule, at which a chain is joined again
SMALL = 20  # prompts: no smaller group is cut, however few prompts there are


@dataclass(frozen=True)
class Groups:
    """Which prompts stay together, and why."""

    numbers: np.ndarray
    """int64 (N), the same for the prompts of a group."""
    templates: np.ndarray
    """int64 (N), number of the template, -1 for none."""
    rules: dict[str, tuple[ItemSets, float]]
    """What is compared, and from which similarity it joins two prompts, by name of the rule."""
    joined_by: dict[str, int]
    """How many prompts each rule alone joins to others."""
    largest: int
    """Most prompts of a chain that is not cut."""
    chains: list[int]
    """Prompts of each chain that was cut."""
    parts: int
    """Groups that the chains were cut into."""


def group_prompts(
    prompts: list[str],
    *,
    near_duplicate: float,
    shingle_chars: int,
    same_words: float | None,
    template_words: int | None,
    largest_group: float,
) -> Groups:
    """Group prompts that share a template, or are near-duplicates by their shingles or by their words.

    Groups are the connected components of these three relations, unless they chain: the same payload in several frames,
    and frames that are alike, tie most of a collection of jailbreaks together. So a component of more than
    `largest_group` of all prompts is taken apart and joined again, the most similar prompts first, with thresholds that
    sink from COPY to those of the rules. A join that would make a group too large is cut. Templates and copies (COPY)
    stay whole; groups that these alone make too large remain. Near-duplicates across a cut may be on both sides of a
    split.

    Args:
        near_duplicate: similarity of sets of shingles from which two prompts are near-duplicates.
        shingle_chars: characters of a shingle.
        same_words: the same of sets of words, weighted by rarity. None: words are not compared.
        template_words: words in a row that prompts of a template share. None: there are no templates.
        largest_group: share of all prompts.
    """
    words, vocabulary = number_words([words_of(prompt) for prompt in prompts])
    rules = {"shingles": (shingle_sets(prompts, shingle_chars), near_duplicate)}
    if same_words is not None:
        rules["words"] = (word_sets(words, vocabulary), same_words)
    templates = np.full(len(prompts), -1) if template_words is None else template_of(words, template_words)
    by_template = join(np.arange(len(prompts)), *_links(templates, templates >= 0))
    joins = {"templates": by_template} | {name: near_duplicate_groups(*rule) for name, rule in rules.items()}
    numbers = np.arange(len(prompts))
    for each in joins.values():
        numbers = join(numbers, *_links(each, np.ones(len(prompts), dtype=bool)))
    largest = max(int(largest_group * len(prompts)), SMALL)
    numbers, chains, parts = _cut(numbers, by_template, rules, largest)
    joined_by = {name: int((np.bincount(each)[each] > 1).sum()) for name, each in joins.items()}
    return Groups(numbers, templates, rules, joined_by, largest, chains, parts)


def _links(numbers: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of prompts that tie together those of the same number, of the prompts that are `among` them."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(numbers[rows], kind="stable")]
    same = numbers[rows[1:]] == numbers[rows[:-1]]
    return rows[:-1][same], rows[1:][same]


def _cut(
    numbers: np.ndarray, by_template: np.ndarray, rules: dict[str, tuple[ItemSets, float]], largest: int
) -> tuple[np.ndarray, list[int], int]:
    """Join the groups of more than `largest` prompts again.

    Returns: the numbers after that, the sizes of the groups that were divided, and how many groups they became.
    """
    cut, chains, parts = numbers.copy(), [], 0
    for number in np.flatnonzero(np.bincount(numbers) > largest):
        rows = np.flatnonzero(numbers == number)
        some = [
            (sets.some(rows), np.linspace(max(COPY, threshold), threshold, STEPS)) for sets, threshold in rules.values()
        ]
        groups = np.unique(by_template[rows], return_inverse=True)[1].ravel()
        for step in range(STEPS):
            for sets, thresholds in some:
                groups = near_duplicate_groups(sets, thresholds[step], groups, largest if step else None)
        if groups.any():
            chains.append(len(rows))
            parts += len(np.unique(groups))
        cut[rows] = cut.max() + 1 + groups
    return cut, chains, parts
