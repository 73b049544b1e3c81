"""Tokens removed from the model's input in several orders, and the curves and areas that come of it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from small_models import PROMPTS, WIDTH, embeddings, one_direction, seen_alone, small_model, tokens_of

from pipeline.core.points import Point
from pipeline.interventions.deletion import METHODS, PIECES, SHARES, Curves, curves, removable
from pipeline.lm.tokens import PromptTokens
from pipeline.probes.attribution import Classifier, Linear


def deletion_of(
    model: Any, tokens: PromptTokens, may_go: list[np.ndarray], classifiers: dict[str, Classifier]
) -> Curves:
    how: dict[str, Any] = {"norm_limit": math.inf, "batch_tokens": 256, "dtype": torch.float32, "seed": 0}
    return curves(model, tokens, may_go, Point("resid_post", 1), classifiers, **how)


def test_a_token_that_decides_everything_is_found() -> None:
    model, tokens = small_model("qwen3"), tokens_of(PROMPTS[:15])
    decisive = 77
    with torch.no_grad():
        embeddings(model)[decisive] = 200 * torch.eye(WIDTH)[0]
    for number, ids in enumerate(tokens.ids):
        ids[ids == decisive] = 78
        ids[1 + number % (len(ids) - 1)] = decisive
    noise = Classifier(Linear("mean", np.eye(WIDTH)[5], 0.0), lambda x_TD: x_TD)
    found = deletion_of(model, tokens, removable(tokens, tokens), {"sae": one_direction(), "dense": noise})
    level = {key: logits[..., 0].mean(axis=(0, 1)) for key, logits in found.logits.items()}
    gone = SHARES.index(20)
    assert level["deletion", "sae"][0] > 20 * abs(level["deletion", "sae"][gone])
    assert level["deletion", "random"][gone] > level["deletion", "sae"][0] / 2
    assert level["insertion", "sae"][0] > 2 * level["insertion", "random"][0], "it alone is kept"
    areas = found.areas({"sae": 2.0, "dense": 1.0})
    for method in METHODS:
        own = areas[method]["sae"]["sae"]
        assert own["area"] > 3 * own["area_error"] > 0 and own["probability"] > 0
        assert own["area"] > areas[method]["dense"]["sae"]["area"] + own["area_error"]
        assert found.areas({"sae": 4.0, "dense": 1.0})[method]["sae"]["sae"]["area"] == own["area"] / 2


def test_no_order_finds_a_better_first_token_than_leaving_each_one_out() -> None:
    """With two tokens that can go and any classifier: deletion removes that without which the logit is lower."""
    model, tokens = small_model("gpt2"), tokens_of(PROMPTS[:12])
    two = [np.sort(np.random.default_rng(len(ids)).choice(np.arange(1, len(ids)), 2, False)) for ids in tokens.ids]
    classifier = Classifier(Linear("max", np.linspace(-1, 1, WIDTH), 0.0), lambda x_TD: x_TD)
    found = deletion_of(model, tokens, two, {"dense": classifier}).logits
    half = SHARES.index(50)
    best = found["deletion", "left_out_dense"][:, 0, half, 0]
    for prompt, ids in enumerate(tokens.ids):
        without = [classifier.logit(seen_alone(model, "h.1", np.delete(ids, gone))[1][1:]) for gone in two[prompt]]
        assert best[prompt] == pytest.approx(min(without), abs=1e-4)
    for order in ("dense", "random"):
        assert (best[:, None] <= found["deletion", order][:, :, half, 0] + 1e-4).all()
    assert (best + 1e-3 < found["deletion", "dense"][:, 0, half, 0]).any(), "contributions are another order"


def test_for_the_mean_of_what_tokens_are_by_themselves_both_orders_are_the_same() -> None:
    """Where no token looks at another, the token of the largest contribution is the one that is missed most."""
    model: Any = small_model("gpt2")
    tokens = tokens_of(PROMPTS[:8])
    for block in model.h:
        torch.nn.init.zeros_(block.attn.c_proj.weight)
    torch.nn.init.zeros_(model.wpe.weight)
    found = deletion_of(model, tokens, removable(tokens, tokens), {"dense": one_direction()})
    for method in METHODS:
        by_contribution, left_out = (found.logits[method, order] for order in ("dense", "left_out_dense"))
        np.testing.assert_allclose(by_contribution, left_out, atol=1e-4)
    areas = found.areas({"dense": 1.0})
    assert areas["deletion"]["left_out_dense"]["dense"]["area"] > 0


def test_of_long_prompts_pieces_are_left_out() -> None:
    model = small_model("gpt2")
    tokens = tokens_of([" ".join(PROMPTS[:40])])
    assert len(tokens.ids[0]) > 2 * PIECES
    decisive, place = 77, len(tokens.ids[0]) // 2
    with torch.no_grad():
        embeddings(model)[decisive] = 200 * torch.eye(WIDTH)[0]
    tokens.ids[0][tokens.ids[0] == decisive] = 78
    tokens.ids[0][place] = decisive
    found = deletion_of(model, tokens, removable(tokens, tokens), {"dense": one_direction()}).logits
    at_ten = SHARES.index(10)
    assert found["deletion", "left_out_dense"][0, 0, at_ten, 0] < found["deletion", "random"][0, :, 0, 0].min() / 2


def test_the_curves_are_of_the_model_run_without_the_tokens() -> None:
    """Each point of a curve, against the shortened prompt run alone; every third token may not go."""
    model, tokens = small_model("gpt2"), tokens_of(PROMPTS[:6])
    may_go = [np.array([position for position in range(1, len(ids)) if position % 3]) for ids in tokens.ids]
    classifier = one_direction("max")
    found = deletion_of(model, tokens, may_go, {"dense": classifier})

    def logit(ids: np.ndarray) -> float:
        return classifier.logit(seen_alone(model, "h.1", ids)[1][1:])

    for prompt, ids in enumerate(tokens.ids):
        by_token = classifier.by_token(seen_alone(model, "h.1", ids)[1][1:])
        order = sorted(may_go[prompt], key=lambda position: -by_token[position - 1])
        for place, share in enumerate(SHARES):
            count = round(share / 100 * len(order))
            without = {"deletion": order[: min(count, len(order) - 1)], "insertion": order[max(count, 1) :]}
            for method, gone in without.items():
                expected = logit(np.delete(ids, gone))
                assert found.logits[method, "dense"][prompt, 0, place, 0] == pytest.approx(expected, abs=1e-4)
    random = found.logits["deletion", "random"]
    assert random.shape == (6, 3, len(SHARES), 1) and np.ptp(random[:, :, 3], axis=1).min() > 0
    np.testing.assert_array_equal(random[:, 1, 0], found.logits["insertion", "dense"][:, 0, -1])


def test_only_candidates_of_the_prompt_itself_may_go() -> None:
    whole, prompt_alone = (tokens_of(PROMPTS[:5], prompt_format="chat", keep=keep) for keep in ("all", "prompt"))
    for positions, inside in zip(removable(whole, prompt_alone), prompt_alone.kept, strict=True):
        assert positions.tolist() == inside.tolist()
    raw = tokens_of(PROMPTS[:5])
    assert [positions.tolist() for positions in removable(raw, raw)] == [list(range(1, len(ids))) for ids in raw.ids]


def test_rows_are_means_over_prompts_and_draws() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 1, len(SHARES), 1))
    draws = np.random.default_rng(1).normal(size=(4, 3, len(SHARES), 1))
    found = Curves(["sae"], {("deletion", "sae"): logits, ("deletion", "random"): draws})
    rows = list(found.rows())
    assert [row["share_of_tokens"] for row in rows if row["order"] == "random"] == [share / 100 for share in SHARES]
    assert rows[2]["logit"] == pytest.approx(logits[:, 0, 2, 0].mean(), abs=1e-4)
    assert rows[len(SHARES)]["probability"] == pytest.approx(expit(draws[:, :, 0, 0]).mean(), abs=1e-4)
    curve = {row["share_of_tokens"]: row["logit"] for row in rows if row["order"] == "sae"}
    chance = {row["share_of_tokens"]: row["logit"] for row in rows if row["order"] == "random"}
    area = np.trapezoid([chance[share] - curve[share] for share in curve], list(curve))
    assert found.areas({"sae": 0.5})["deletion"]["sae"]["sae"]["area"] == pytest.approx(2 * area, abs=2e-3)
