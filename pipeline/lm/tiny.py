"""A small Qwen3 language model that is trained offline, so that the whole pipeline runs with no network and no GPU.

It reads the same kind of text as the embedded prompt set: prompts of the same generator under other seeds.
"""

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pipeline.core.progress import progress

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [END_OF_TEXT, TURN_START, TURN_END, "<think>", "</think>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{% endif %}{% endif %}"
)
CONTEXT = 1024
SEQUENCE, SEQUENCES = 128, 8  # tokens in a training sequence, sequences in a step
PEAK_LR = 6e-3


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Qwen3's chat markers on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )


def train_language_model(
    texts: list[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    layers: int,
    width: int,
    steps: int,
    seed: int,
) -> Qwen3ForCausalLM:
    """Train a Qwen3 from scratch on `texts` and return it (float32, AdamW, warm-up and then cosine decay)."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    stream = token_stream(texts, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    with progress(steps * SEQUENCE * SEQUENCES, "training the tiny model", "token") as bar:
        for _ in range(steps):
            starts = torch.randint(len(stream) - SEQUENCE, (SEQUENCES, 1))
            batch = stream[starts + torch.arange(SEQUENCE)]
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update(batch.numel())
    return model.eval()


def token_stream(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return all texts as one int64 tensor of token ids, each ended. Every fourth text is a user's turn of a chat."""
    wrapped = [
        f"{TURN_START}user\n{text}{TURN_END}\n{TURN_START}assistant\n{END_OF_TEXT}"
        if index % 4 == 3
        else text + END_OF_TEXT
        for index, text in enumerate(texts)
    ]
    encoded = tokenizer(wrapped, add_special_tokens=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in ids])


@torch.no_grad()
def perplexity(directory: Path, texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """Return a saved model's perplexity on `texts`, each ended: exp of the mean cross-entropy in nats per token."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()
    stream = token_stream(texts, tokenizer)
    sequences = stream[: len(stream) // SEQUENCE * SEQUENCE].view(-1, SEQUENCE)
    total = sum(model(input_ids=batch, labels=batch).loss.item() * len(batch) for batch in sequences.split(64))
    return math.exp(total / len(sequences))
