"""What is said of latents, against plain loops over a small store."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import (
    save_small_model,
)
from stores import written_store
from torch import Tensor

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore
from pipeline.latents.decoder import logit_effects, neighbours, unembedding
from pipeline.latents.examples import examples
from pipeline.latents.firing import Firing
from pipeline.latents.statistics import density, mean_difference, rates, spread
from pipeline.latents.token_scores import specific_tokens, token_scores
from pipeline.lm.load import load_language_model
from pipeline.sae.model import Sae

PROMPTS, WIDTH, LATENTS, SPECIAL = 40, 8, 24, 3
POINT = "resid_post.1"


@dataclass(frozen=True)
class Small:
    """A store of random activations with a random SAE, and the latents of each prompt's tokens, each encoded alone.

    latents: (tokens, L) for each prompt, 0 at tokens that are not counted; counted: (tokens), token_ids: (tokens).
    """

    store: ActivationStore
    sae: Sae
    firing: Firing
    latents: list[np.ndarray]
    counted: list[np.ndarray]
    token_ids: list[np.ndarray]
    groups: np.ndarray


@pytest.fixture(scope="module", params=["topk", "jumprelu"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    token_ids = [rng.integers(0, 12, size) for size in rng.integers(1, 9, PROMPTS)]
    token_ids[4] = np.array([5, SPECIAL, SPECIAL])  # no candidate
    token_ids[8] = np.array([5, 6, 7, SPECIAL])  # the last is none
    generator = torch.Generator().manual_seed(0)
    acts = [torch.randn(len(ids), WIDTH, generator=generator).half() for ids in token_ids]
    sae = random_sae(request.param, generator)
    store = written_store(folder, POINT, token_ids, [torch.cat(acts[:15]), torch.cat(acts[15:])], SPECIAL)
    latents, counted = [], []
    for ids, rows in zip(token_ids, acts, strict=True):
        candidate = (np.arange(len(ids)) > 0) & (ids != SPECIAL)
        counted.append(candidate if candidate.any() else np.ones(len(ids), dtype=bool))
        one_by_one = torch.cat([sae.encode(row[None]) for row in rows]).numpy()
        latents.append(one_by_one * counted[-1][:, None])
    groups = np.array([f"g{number // 3}" for number in range(PROMPTS)])
    return Small(store, sae, Firing.of(store, sae), latents, counted, token_ids, groups)


def random_sae(architecture: str, generator: torch.Generator) -> Sae:
    tensors = {
        "W_enc": torch.randn(WIDTH, LATENTS, generator=generator),
        "b_enc": torch.randn(LATENTS, generator=generator),
        "W_dec": torch.randn(LATENTS, WIDTH, generator=generator),
        "b_dec": torch.randn(WIDTH, generator=generator),
    }
    tensors["b_enc"][7] = -1e3  # dead
    if architecture == "jumprelu":
        tensors["threshold"] = torch.full((LATENTS,), 1.5)
    return Sae(architecture, tensors, k=4 if architecture == "topk" else None)


def test_tokens_and_peaks_are_those_of_each_prompt_alone(small: Small) -> None:
    np.testing.assert_allclose(small.firing.tokens.toarray(), np.concatenate(small.latents), rtol=1e-5, atol=1e-6)
    peaks = np.array([latents.max(axis=0) for latents in small.latents])
    np.testing.assert_allclose(small.firing.peaks.toarray(), peaks, rtol=1e-5, atol=1e-6)
    assert 0 < small.firing.tokens.nnz < np.concatenate(small.latents).size / 2


def test_latents_of_a_single_prompt_are_kept_apart(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    acts = torch.randn(5, WIDTH, generator=generator)
    sae = random_sae("jumprelu", generator)
    firing = Firing.of(written_store(tmp_path, POINT, [np.array([0, 1, 2, 4, 5])], [acts], SPECIAL), sae)
    np.testing.assert_allclose(firing.peaks.toarray()[0], sae.encode(acts[1:]).max(dim=0).values, rtol=1e-5)


def test_density_and_rates_are_shares_of_tokens_and_prompts(small: Small) -> None:
    some = np.arange(PROMPTS) % 3 > 0
    groups = np.stack([some, np.arange(PROMPTS) < 5, np.zeros(PROMPTS, dtype=bool)], axis=1)
    found, found_rates = density(small.firing, some), rates(small.firing, groups)
    for latent in range(LATENTS):
        tokens = [
            value > 0
            for number in np.flatnonzero(some)
            for value, counts in zip(small.latents[number][:, latent], small.counted[number], strict=True)
            if counts
        ]
        assert found[latent] == pytest.approx(sum(tokens) / len(tokens))
        for group in range(2):
            active = [(small.latents[number][:, latent] > 0).any() for number in np.flatnonzero(groups[:, group])]
            assert found_rates[latent, group] == pytest.approx(sum(active) / len(active))
    assert not found_rates[:, 2].any(), "a group without prompts"
    assert found[7] == 0 and found.max() > 0.1


def test_spread_is_0_in_one_group_and_1_over_all() -> None:
    found = spread(np.array([[0.2, 0, 0], [0, 0, 0], [0.3, 0.3, 0.3], [0.5, 0.25, 0.25], [1e-9, 1e-9, 1e-9]]))
    entropy = (0.5 * math.log(2) + 2 * 0.25 * math.log(4)) / math.log(3)
    np.testing.assert_allclose(found, [0, 0, 1, entropy, 1], atol=1e-12)
    assert spread(np.array([[0.4], [0.0]])).tolist() == [0, 0], "a single group"


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_mean_differences_are_those_of_the_features_that_the_classifier_pools(small: Small, pooling: str) -> None:
    some = np.arange(PROMPTS) % 4 == 0
    others = np.arange(PROMPTS) % 4 == 1
    found = mean_difference(small.firing, pooling, some, others)
    views = pooled(small.store, small.store.prompt_ids, [pooling], lambda x: {"latents": small.sae.encode(x)})
    features = views["latents"][pooling]
    np.testing.assert_allclose(found, features[some].mean(axis=0) - features[others].mean(axis=0), atol=1e-5)
    of_loop: Any = {"mean": np.mean, "max": np.max, "last": lambda values: values[-1]}[pooling]
    by_hand = [of_loop(latents[counted, 2]) for latents, counted in zip(small.latents, small.counted, strict=True)]
    assert found[2] == pytest.approx(np.mean(np.array(by_hand)[some]) - np.mean(np.array(by_hand)[others]), abs=1e-5)


def test_token_scores_are_bm25(small: Small) -> None:
    token_ids = np.concatenate(small.token_ids)
    scores = token_scores(small.firing, token_ids)
    tf = [dict.fromkeys(range(12), 0.0) for _ in range(LATENTS)]
    for latents, ids in zip(small.latents, small.token_ids, strict=True):
        for values, token in zip(latents, ids, strict=True):
            for latent in range(LATENTS):
                tf[latent][int(token)] += float(values[latent])
    for latent, terms in enumerate(tf):
        largest = max(float(latents[:, latent].max()) for latents in small.latents)
        tf[latent] = {token: value / largest if largest else 0.0 for token, value in terms.items()}
    lengths = [sum(terms.values()) for terms in tf]
    mean = sum(lengths) / sum(length > 0 for length in lengths)
    for latent in range(LATENTS):
        expected = {}
        for token, frequency in tf[latent].items():
            having = sum(terms[token] > 0 for terms in tf)
            idf = math.log(1 + (LATENTS - having + 0.5) / (having + 0.5))
            expected[token] = idf * frequency / (frequency + 1.2 * (0.25 + 0.75 * lengths[latent] / mean))
        np.testing.assert_allclose(scores[[latent]].toarray()[0], list(expected.values()), rtol=1e-4, atol=1e-6)
        ids, values = list(specific_tokens(scores, 3))[latent]
        best = sorted((token for token in expected if expected[token]), key=lambda token: -expected[token])
        assert ids.tolist() == best[:3]
        np.testing.assert_allclose(values, [expected[token] for token in best[:3]], rtol=1e-4)


def test_top_examples_are_the_strongest_of_distinct_groups(small: Small) -> None:
    found = list(examples(small.firing, small.groups, np.full(LATENTS, 4)))
    for latent in range(LATENTS):
        strongest: dict[str, tuple[float, int]] = {}
        for number, latents in enumerate(small.latents):
            peak = float(latents[:, latent].max())
            group = str(small.groups[number])
            if peak > strongest.get(group, (0.0, 0))[0]:
                strongest[group] = peak, number
        wanted = sorted(strongest.values(), reverse=True)[:4]
        top = [example for example in found if example.latent == latent and example.quantile is None]
        assert [example.prompt for example in top] == [number for _, number in wanted]
        for example in top:
            column = small.latents[example.prompt][:, latent]
            assert example.positions.tolist() == np.flatnonzero(column).tolist()
            np.testing.assert_allclose(example.values, column[column > 0], rtol=1e-5)
            assert example.activation == pytest.approx(column.max(), rel=1e-5)
    assert not [example for example in found if example.latent == 7], "a dead latent has none"


def test_quantile_examples_are_from_the_whole_range(small: Small) -> None:
    counts = np.where(np.arange(LATENTS) == 2, 3, 5)
    found = [each for each in examples(small.firing, small.groups, counts) if each.quantile is not None]
    for latent, count in enumerate(counts):
        here = [example for example in found if example.latent == latent]
        peaks = small.firing.prompts_of(latent)[1]
        assert len({example.prompt for example in here}) == len(here) == min(len(peaks), count)
        if len(peaks) < count:
            continue
        quantiles = [5 / 6, 0.5, 1 / 6] if latent == 2 else [0.9, 0.7, 0.5, 0.3, 0.1]
        assert [example.quantile for example in here] == pytest.approx(quantiles)
        for example, quantile in zip(here, quantiles, strict=True):
            low, high = (np.quantile(peaks, quantile, method=method) for method in ("lower", "higher"))
            assert low <= example.activation <= high
            column = small.latents[example.prompt][:, latent]
            assert example.activation == pytest.approx(column.max(), rel=1e-5)


def test_neighbours_have_the_largest_cosines() -> None:
    rows = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    latents, cosines = neighbours(rows, 5)
    for latent in (0, 255, 256, 299):
        all_of_them = [
            (float(rows[latent] @ other / rows[latent].norm() / other.norm()), number)
            for number, other in enumerate(rows)
            if number != latent
        ]
        expected = sorted(all_of_them, reverse=True)[:5]
        assert latents[latent].tolist() == [number for _, number in expected]
        assert cosines[latent].tolist() == pytest.approx([cosine for cosine, _ in expected], abs=1e-5)
    assert neighbours(rows[:3], 5)[0].shape == (3, 2)


def language_model(family: str, **settings: Any) -> Any:
    """A small language model, the weights of its norms random."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "vocab_size": 300, "max_position_embeddings": 64}
    if family in ("Qwen3", "Gemma"):
        sizes |= {"num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": family == "Gemma"}
    config = getattr(transformers, f"{family}Config")(**sizes | settings)
    suffix = "LMHeadModel" if family in ("GPT2", "Bert") else "ForCausalLM"
    model = getattr(transformers, f"{family}{suffix}")(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() == 1:
                weights.add_(0.5 * torch.randn_like(weights))
    return model


@pytest.mark.parametrize(
    ("family", "norm", "centres"),
    [
        ("Qwen3", "model.norm", False),
        ("Gemma", "model.norm", False),
        ("GPT2", "transformer.ln_f", True),
        ("GPTNeoX", "gpt_neox.final_layer_norm", True),
    ],
)
def test_logit_effects_are_those_of_a_forward_through_norm_and_head(family: str, norm: str, centres: bool) -> None:
    model = language_model(family)
    head = unembedding(model, 290)
    assert head is not None and head.centres == centres and head.norm
    directions = torch.randn(5, 32)
    state = torch.randn(32)

    def scale(x: Tensor) -> Tensor:
        x = x - x.mean() if centres else x
        return x.square().mean().sqrt()

    def after(x: Tensor) -> Tensor:
        """What the model makes of a state, with the norm's division taken back."""
        module, bias = model.get_submodule(norm), torch.zeros(32)
        if centres:
            bias = module.bias
        normed: Tensor = (module(x) - bias) * scale(x)
        logits: Tensor = normed @ model.get_output_embeddings().weight[:290].T
        return logits - logits.mean()

    expected = torch.stack([after(state + row) - after(state) for row in directions]).detach()
    torch.testing.assert_close(head.logits(directions), expected, rtol=1e-3, atol=1e-4)
    (ids, values), (low_ids, low_values) = logit_effects(directions, head, 3)
    for row, each in enumerate(expected):
        order = each.argsort(descending=True)
        assert ids[row].tolist() == order[:3].tolist() and low_ids[row].tolist() == order.flip(0)[:3].tolist()
        torch.testing.assert_close(values[row], each[order[:3]], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(low_values[row], each[order.flip(0)[:3]], rtol=1e-3, atol=1e-4)


def test_a_head_right_after_the_blocks_is_read_without_a_norm() -> None:
    model = language_model("OPT", word_embed_proj_dim=32, ffn_dim=64)
    model.model.decoder.final_layer_norm = None
    head = unembedding(model, 300)
    assert head is not None and not head.norm
    directions = torch.randn(2, 32)
    expected = directions @ model.lm_head.weight.T
    torch.testing.assert_close(head.logits(directions), expected - expected.mean(dim=1, keepdim=True))


def test_heads_that_cannot_be_read_have_no_logit_effects() -> None:
    assert unembedding(language_model("Bert"), 300) is None, "a transformation before the head"
    assert unembedding(language_model("Qwen3").model, 300) is None, "no head"
    on_meta = language_model("Qwen3")
    on_meta.lm_head = torch.nn.Linear(32, 300, bias=False, device="meta")
    assert unembedding(on_meta, 300) is None
    quantised = language_model("Qwen3")
    quantised.lm_head = Packed()
    assert unembedding(quantised, 300) is None


class Packed(torch.nn.Module):
    """A head whose weights are packed integers."""

    def __init__(self) -> None:
        super().__init__()
        self.qweight = torch.zeros(4, 300, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], 300)


def test_the_first_block_is_enough_to_read_the_head(tmp_path: Path) -> None:
    save_small_model(tmp_path)
    whole, first = load_language_model(tmp_path, "float32", "cpu"), load_language_model(tmp_path, "float32", "cpu", 1)
    assert whole is not None and first is not None and first.config.num_hidden_layers == 1
    heads = [unembedding(model, 512) for model in (whole, first)]
    for name in ("weights", "gain"):
        torch.testing.assert_close(getattr(heads[0], name), getattr(heads[1], name))
