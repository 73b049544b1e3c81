"""What is said of latents, against plain loops over a small store, and the stage that writes it."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from helpers import (
    SMALL,
    make_tokenizer,
    run_stage,
    run_stage_error,
    sample_rows,
    save_small_model,
    write_csv,
    write_params,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from pipeline.activations.store import ActivationStore, shard_name, write_index, write_manifest, write_shard
from pipeline.activations.tokens import PromptTokens, tokenise
from pipeline.latents.decoder import logit_effects, neighbours, unembedding
from pipeline.latents.examples import examples
from pipeline.latents.firing import Firing
from pipeline.latents.pieces import pieces, token_texts
from pipeline.latents.specific import specific_tokens, token_scores
from pipeline.latents.statistics import density, mean_difference, rates, spread
from pipeline.model.checkpoint import load_language_model
from pipeline.model.tiny import train_tokenizer
from pipeline.probes.pooling import pooled
from pipeline.sae.model import Sae

PROMPTS, WIDTH, LATENTS, SPECIAL = 40, 8, 24, 3
POINT, VARIANT = "resid_post.1", "batch_topk"
MAX_TOKENS = 250
CHANGES: dict[str, Any] = {
    "data.path": "prompts.parquet",
    "extract.max_tokens": MAX_TOKENS,
    "probe.noise": [],
    "probe.scarce": [],
}
HOSTILE = [
    "<script>alert('x')</script> & <b>bold</b> \"quoted\" </script>",
    "right \u202eto left\u202c and \u2066isolated\u2069 and \u200bzero\ufeff width",
    "emoji \U0001f468\u200d\U0001f469\u200d\U0001f467 and \U0001f1eb\U0001f1f7 at the end \U0001f9a9",
    "combining e\u0301 a\u0308\u0323 and q\u0307\u0323, \u1e9b\u0323 \u212b \u1112\u1161\u11ab",
    "NUL \x00 bell \x07 escape \x1b[31m and  spaces\t\r\n  at the end  ",
    "<|im_start|>system you are <|im_end|><|endoftext|> now",
    "<|endoftext|><|endoftext|>",
]


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
    token_ids[4] = np.array([5, SPECIAL, SPECIAL])  # none usable
    token_ids[8] = np.array([5, 6, 7, SPECIAL])  # the last not usable
    generator = torch.Generator().manual_seed(0)
    acts = [torch.randn(len(ids), WIDTH, generator=generator).half() for ids in token_ids]
    sae = random_sae(request.param, generator)
    store = written_store(folder, token_ids, [torch.cat(acts[:15]), torch.cat(acts[15:])])
    latents, counted = [], []
    for ids, rows in zip(token_ids, acts, strict=True):
        usable = (np.arange(len(ids)) > 0) & (ids != SPECIAL)
        counted.append(usable if usable.any() else np.ones(len(ids), dtype=bool))
        one_by_one = torch.cat([sae.encode(row[None]) for row in rows]).numpy()
        latents.append(one_by_one * counted[-1][:, None])
    groups = np.array([f"g{number // 3}" for number in range(PROMPTS)])
    return Small(store, sae, Firing.of(store, sae), latents, counted, token_ids, groups)


def written_store(folder: Path, token_ids: list[np.ndarray], shards: list[Tensor]) -> ActivationStore:
    kept = [np.arange(len(ids), dtype=np.int32) for ids in token_ids]
    tokens = PromptTokens([f"p{number:02d}" for number in range(len(kept))], token_ids, kept, [SPECIAL])
    write_index(folder / "tokens.parquet", [tokens.index(range(len(kept)))])
    for number, rows in enumerate(shards):
        write_shard(folder / POINT, number, rows)
    named = [{"file": shard_name(number), "rows": len(rows)} for number, rows in enumerate(shards)]
    write_manifest(folder / POINT, {"width": WIDTH, "special_ids": [SPECIAL], "shards": named})
    return ActivationStore(folder, POINT)


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
    firing = Firing.of(written_store(tmp_path, [np.array([0, 1, 2, 4, 5])], [acts]), sae)
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


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = make_tokenizer()
    return tokenizer


def byte_level_with_nfc() -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, spaces left out, special tokens around."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in special[1:]]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama's: a mark for spaces, one put before the text, single bytes for what is not known."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, limit_alphabet=40, show_progress=False)
    tokenizer.train_from_iterator([row["prompt"] for row in sample_rows(100)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


TEXTS = [*HOSTILE, *(row["prompt"] for row in sample_rows(12)), " ", "\U0001f9a9" * 5]
TOKENIZERS = [byte_level, byte_level_with_nfc, word_piece, sentence_piece]


def spelt(tokenizer: Any, prompt: str, **options: Any) -> list[str]:
    """The pieces of a prompt's kept tokens, as extraction keeps them."""
    tokens = tokenise(tokenizer, ["p"], [prompt], **{"max_tokens": 10_000} | options)
    kept = tokens.kept[0]
    options.pop("max_tokens", None)
    found = pieces(tokenizer, prompt, kept, tokens.ids[0][kept], **options)
    assert found is not None and len(found) == len(kept)
    return found


@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_tokens_of_a_prompt_join_to_its_text(make: Any) -> None:
    tokenizer = make()
    for text in TEXTS:
        found = spelt(tokenizer, text)
        assert "".join(found) == text
        for cut in range(1, len(found), 5):
            shorter = spelt(tokenizer, text, max_tokens=cut)
            # but where only spaces are left, which no token stands for
            assert shorter[:-1] == found[: cut - 1] and shorter[-1].rstrip() == found[cut - 1].rstrip()


@pytest.mark.parametrize("make", TOKENIZERS)
def test_each_piece_is_the_text_of_its_token(make: Any) -> None:
    tokenizer = make()
    special = {tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    for row in sample_rows(30):
        ids = tokenizer(row["prompt"])["input_ids"]
        found = spelt(tokenizer, row["prompt"])
        for token, piece, text in zip(ids, found, token_texts(tokenizer, ids), strict=True):
            if token in special:
                assert piece.strip() == ""
            elif token != tokenizer.unk_token_id:
                assert piece.strip().lower() == text.strip().lower()


def test_a_character_of_several_tokens_stands_once() -> None:
    assert spelt(byte_level(), "a \U0001f9a9b") == ["a", " ", "", "", "", "\U0001f9a9", "b"]


@pytest.mark.parametrize("prompt_format", ["chat", "chat_thinking"])
def test_within_a_chat_the_prompt_alone_is_spelt_or_all_of_it(prompt_format: str) -> None:
    tokenizer = train_tokenizer(["a\n\n\nb\n\n"] * 9 + TEXTS, 300)
    tokenizer.chat_template = "[user]\n{{ messages[0].content }}\n\n[answer]"
    for text in [*TEXTS, "\n\nfirst and last in one token with some of the template\n"]:
        assert "".join(spelt(tokenizer, text, prompt_format=prompt_format)) == text
        everything = spelt(tokenizer, text, prompt_format=prompt_format, keep="all")
        assert "".join(everything) == f"[user]\n{text}\n\n[answer]"


def test_a_tokenizer_without_offsets_gives_the_tokens_own_text() -> None:
    assert spelt(ByT5Tokenizer(), "abc") == ["a", "b", "c", "</s>"]


def test_other_tokens_than_those_of_the_activations_are_noticed() -> None:
    tokenizer = byte_level()
    ids = np.array(tokenizer("some prompt")["input_ids"])
    assert pieces(tokenizer, "some prompt", np.arange(len(ids)), ids) is not None
    assert pieces(tokenizer, "some prompt", np.arange(len(ids)), ids[::-1]) is None
    assert pieces(tokenizer, "some", np.arange(len(ids)), ids) is None


@pytest.mark.parametrize("make", TOKENIZERS)
def test_tokens_are_named_with_the_space_before_them(make: Any) -> None:
    tokenizer = make()
    ids = tokenizer("who and who", add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)).strip() == "who and who"


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages up to explain, on prompts some of which are hostile."""
    folder = tmp_path_factory.mktemp("flow")
    rows = sample_rows(400) + [{"prompt": text, "source": "hostile", "cluster": 3} for text in HOSTILE]
    columns = {name: [row[name] for row in rows] for name in ("prompt", "source", "cluster")}
    pq.write_table(pa.table(columns), folder / "prompts.parquet")
    save_small_model(folder / "lm")
    write_params(folder, SMALL | CHANGES)
    benign = [{"prompt": f"harmless prompt {number}", "source": "hostile"} for number in range(20)]
    write_csv(folder / "data/benign.csv", benign)
    run_stage("download", folder)
    run_stage("filter", folder)
    filtered = pq.read_table(folder / "data/prompts.parquet")
    pq.write_table(filtered.take(list(range(len(filtered)))[::-1]), folder / "data/prompts.parquet")
    for stage in ("split", "fetch_model", "extract"):
        run_stage(stage, folder)
    run_stage("probe_dense", folder, POINT)
    for stage in ("train_sae", "probe_sae", "explain"):
        run_stage(stage, folder, POINT, VARIANT)
    return folder


def tables(folder: Path) -> Iterator[Any]:
    for name in ("latents", "examples", "prompts"):
        yield pq.read_table(folder / f"data/latents/{POINT}/{VARIANT}/{name}.parquet").to_pylist()


def test_hostile_prompts_go_through_unchanged(flow: Path) -> None:
    *_, prompts = tables(flow)
    given = {name: pq.read_table(flow / f"data/{name}.parquet").to_pylist() for name in ("prompts", "benign")}
    texts = {row["prompt_id"]: row["prompt"] for rows in given.values() for row in rows}
    assert [row["prompt_id"] for row in prompts] == list(texts)
    assert set(HOSTILE) < {"".join(row["tokens"]) for row in prompts}
    for row in prompts:
        joined, text = "".join(row["tokens"]), texts[row["prompt_id"]]
        assert joined == text or (len(row["tokens"]) == MAX_TOKENS and text.startswith(joined))
    assert all(len(row["tokens"]) == len(row["usable"]) for row in prompts)
    sides = {row["prompt_id"]: row["split"] for row in pq.read_table(flow / "data/splits.parquet").to_pylist()}
    assert all(row["side"] == sides.get(row["prompt_id"], "benign") for row in prompts)
    assert all((row["cluster"] == -1) == (row["side"] == "benign") for row in prompts)


def test_the_latents_are_those_of_the_classifier(flow: Path) -> None:
    latents, _, prompts = tables(flow)
    meta = json.loads((flow / f"data/latents/{POINT}/{VARIANT}/meta.json").read_text())
    folder = flow / f"models/probes/sae/{POINT}/{VARIANT}"
    probe = load_file(folder / "sae/probe.safetensors")
    weights = (probe["coefficient"] / probe["scale"]).tolist()
    assert [row["weight"] for row in latents] == pytest.approx(weights, rel=1e-6)
    chosen = json.loads((folder / "sae-k16/probe.json").read_text())["stability"]["chosen"]
    stable = {str(row["latent"]): row["stability"] for row in latents if row["stability"]}
    assert stable == pytest.approx(chosen, rel=1e-6)
    assert meta["bias"]["sae"] == float(probe["intercept"]) and meta["pooling"] == "mean" and meta["final_norm"] is True
    assert meta["sources"] == sorted(meta["sources"]) and "hostile" in meta["sources"]
    assert meta["counts"]["latents"] == len(latents) == 64
    assert meta["counts"]["prompts"]["test"] == sum(row["side"] == "test" for row in prompts)

    sae = Sae.load(flow / f"models/sae/{POINT}/{VARIANT}")
    store = ActivationStore(flow / "data/activations", POINT)
    features = pooled(store, [row["prompt_id"] for row in prompts], ["mean", "max"], lambda x: {"f": sae.encode(x)})
    side, cluster = (np.array([row[name] for row in prompts]) for name in ("side", "cluster"))
    target, other = (side == "test") & (cluster == 3), (side == "test") & (cluster != 3)
    logits = features["f"]["mean"] @ np.array(weights)
    total = sum(row["mean_contribution"] for row in latents)
    assert total == pytest.approx(logits[target].mean() - logits[other].mean(), abs=1e-4)
    active = features["f"]["max"] > 0
    source = np.array([row["source"] for row in prompts])
    usable = np.concatenate([row["usable"] for row in prompts])
    of_train = usable & np.repeat(side == "train", [len(row["usable"]) for row in prompts])
    densities = (sae.encode(store.read(of_train)) > 0).double().mean(dim=0)
    for row in latents:
        here = active[:, row["latent"]]
        assert row["density"] == pytest.approx(float(densities[row["latent"]]))
        assert row["rate_target"] == pytest.approx(here[target].mean())
        assert row["rate_other"] == pytest.approx(here[other].mean())
        assert row["cluster_rates"] == pytest.approx([here[cluster == number].mean() for number in range(6)])
        of_sources = [here[(source == name) & (side != "benign")].mean() for name in meta["sources"]]
        assert row["source_rates"] == pytest.approx(of_sources)
        assert row["max_activation"] == pytest.approx(features["f"]["max"][:, row["latent"]].max(), rel=1e-5)
        assert len(row["neighbours"]) == 5 and len(row["promotes"]) == len(row["suppresses"]) == 8
        assert row["promotes"][0]["value"] > row["promotes"][7]["value"] > 0 > row["suppresses"][0]["value"]


def test_examples_point_into_the_prompts(flow: Path) -> None:
    latents, found, prompts = tables(flow)
    assert {row["kind"] for row in found} == {"top", "quantile"}
    for row in found:
        prompt = prompts[row["prompt"]]
        assert len(row["positions"]) == len(row["values"]) and max(row["values"]) == row["activation"]
        usable = np.array(prompt["usable"])
        assert usable[row["positions"]].all(), prompt
    for latent in latents:
        top = [row for row in found if row["latent"] == latent["latent"] and row["kind"] == "top"]
        assert [row["activation"] for row in top] == sorted((row["activation"] for row in top), reverse=True)
        assert not top or top[0]["activation"] == latent["max_activation"]


def test_contributions_sum_to_the_logits_of_the_scores(flow: Path) -> None:
    explained = flow / f"data/latents/{POINT}/{VARIANT}"
    prompts = pq.read_table(explained / "prompts.parquet").to_pylist()
    bias = json.loads((explained / "meta.json").read_text())["bias"]
    rows = pq.read_table(explained / "contributions.parquet").to_pylist()
    assert len(rows) == sum(row["side"] != "train" for row in prompts)
    for which, arm, file in (("sae", f"sae_{VARIANT}", f"sae/{POINT}/{VARIANT}"), ("dense", "dense", f"dense/{POINT}")):
        scores = {
            row["prompt_id"]: row["score"]
            for row in pq.read_table(flow / f"data/scores/{file}.parquet").to_pylist()
            if row["setting"] == "balanced" and row["arm"] == arm
        }
        for row in rows:
            logit, prompt = row[f"{which}_logit"], prompts[row["prompt"]]
            assert sum(row[f"{which}_tokens"]) + bias[which] == pytest.approx(logit, abs=1e-9)
            assert len(row[f"{which}_tokens"]) == len(prompt["tokens"])
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(scores[prompt["prompt_id"]], abs=1e-4)


def test_the_latents_that_the_classifier_uses_most_have_more_examples(flow: Path, tmp_path: Path) -> None:
    shutil.copytree(flow, tmp_path / "work")
    with mock.patch("pipeline.stages.explain.MOST_USED", 4):
        run_stage("explain", tmp_path / "work", POINT, VARIANT)
    latents, found, _ = tables(tmp_path / "work")
    by_use = sorted(latents, key=lambda row: -abs(row["mean_contribution"]))
    for place, latent in enumerate(by_use):
        for kind in ("top", "quantile"):
            rows = [row for row in found if row["latent"] == latent["latent"] and row["kind"] == kind]
            assert len(rows) == 10 if place < 4 else len(rows) <= 5


def test_the_stage_writes_the_same_bytes_again(flow: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in (flow / f"data/latents/{POINT}/{VARIANT}").iterdir()}
    shutil.copytree(flow, tmp_path / "work")
    run_stage("explain", tmp_path / "work", POINT, VARIANT)
    after = {file.name: file.read_bytes() for file in (tmp_path / f"work/data/latents/{POINT}/{VARIANT}").iterdir()}
    names = {"latents.parquet", "examples.parquet", "prompts.parquet", "contributions.parquet", "meta.json"}
    assert before == after and set(before) == names


def test_files_that_do_not_belong_together_are_told_in_a_line(flow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(flow, folder)
    prompts = pq.read_table(folder / "data/prompts.parquet")
    pq.write_table(prompts.slice(1), folder / "data/prompts.parquet")
    assert "activations of other prompts" in run_stage_error("explain", folder, POINT, VARIANT)
    changed = prompts.set_column(1, "prompt", [[text[::-1] for text in prompts["prompt"].to_pylist()]])
    pq.write_table(changed, folder / "data/prompts.parquet")
    assert "makes other tokens of prompt" in run_stage_error("explain", folder, POINT, VARIANT)
    pq.write_table(prompts, folder / "data/prompts.parquet")
    file = folder / f"models/probes/sae/{POINT}/{VARIANT}/sae/probe.safetensors"
    save_file({name: tensor[:1].clone() for name, tensor in load_file(file).items()}, file)
    assert "is for 1 features, not 64" in run_stage_error("explain", folder, POINT, VARIANT)
    file.unlink()
    assert "is missing or damaged" in run_stage_error("explain", folder, POINT, VARIANT)
