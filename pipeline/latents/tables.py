"""The tables that a latent browser reads: their columns, and how to make them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.latents.examples import Example

_TOKENS = pa.list_(pa.struct([("token", pa.string()), ("score", pa.float32())]))
_EFFECTS = pa.list_(pa.struct([("token", pa.string()), ("value", pa.float32())]))
_NEIGHBOURS = pa.list_(pa.struct([("latent", pa.int32()), ("cosine", pa.float32())]))
LATENTS = pa.schema(
    [
        ("latent", pa.int32()),
        ("density", pa.float32()),  # share of the counted tokens of train prompts on which it is active
        ("weight", pa.float32()),  # of the pooled latent, in the classifier's logit
        ("rate_target", pa.float32()),  # share of the test prompts of the target in which it is active
        ("rate_other", pa.float32()),  # and of the other test prompts
        ("cluster_rates", pa.list_(pa.float32())),  # share of the prompts of each cluster, train and test
        ("source_rates", pa.list_(pa.float32())),  # and of each of the largest sources, and all others together
        ("source_spread", pa.float32()),  # entropy of the source rates: 0 one source, 1 all alike
        ("stability", pa.float32()),  # share of resamples in which a probe on 16 latents chooses it
        ("mean_contribution", pa.float32()),  # to the logit: mean over target test prompts minus over others
        ("max_activation", pa.float32()),
        ("tokens", _TOKENS),  # those it is most specific to, by BM25
        ("promotes", _EFFECTS),  # whose logits its decoder direction raises most; null: no head to read
        ("suppresses", _EFFECTS),  # lowers most
        ("neighbours", _NEIGHBOURS),  # by decoder direction
    ]
)
EXAMPLES = pa.schema(
    [
        ("latent", pa.int32()),
        ("kind", pa.string()),  # top or quantile
        ("quantile", pa.float32()),  # null for top
        ("prompt", pa.int32()),  # row of the prompts' table
        ("activation", pa.float32()),  # the largest in the prompt
        ("positions", pa.list_(pa.int32())),  # in the prompt's list of tokens, all on which the latent is active
        ("values", pa.list_(pa.float32())),
    ]
)
PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("side", pa.string()),  # train, test or benign
        ("cluster", pa.int32()),  # -1 for benign
        ("source", pa.string()),
        ("tokens", pa.list_(pa.string())),  # pieces of text, one a kept token
        ("counted", pa.list_(pa.bool_())),  # whether latents are looked at there
    ]
)
_CONTRIBUTIONS = pa.list_(pa.struct([("latent", pa.int32()), ("contribution", pa.float64())]))
CONTRIBUTIONS = pa.schema(
    [
        ("prompt", pa.int32()),  # row of the prompts' table
        ("sae_logit", pa.float64()),
        ("dense_logit", pa.float64()),
        ("sae_tokens", pa.list_(pa.float64())),  # what each kept token adds to the logit
        ("dense_tokens", pa.list_(pa.float64())),
        ("latents", _CONTRIBUTIONS),  # those that add or take most
    ]
)


def table(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """Make a table with the fields of the schema, each from a sequence of values. A matrix makes a column of lists."""
    return pa.table([pa.array(list(columns[field.name]), field.type) for field in schema], schema=schema)


def pairs(rows: Iterable[tuple[Any, Any]], names: Mapping[int, str] | None = None) -> list[list[tuple[Any, float]]]:
    """Make a column of lists of two-field structs.

    Args:
        rows: for each row an array of numbers and an array of their values.
        names: what to write in place of the numbers, by number; None: the numbers stay.
    """
    return [
        [
            (names[number] if names else number, value)
            for number, value in zip(numbers.tolist(), values.tolist(), strict=True)
        ]
        for numbers, values in rows
    ]


def examples_table(found: Iterable[Example]) -> pa.Table:
    """Make a table with the schema EXAMPLES, one row per example."""
    rows = list(found)
    columns = {name: [getattr(row, name) for row in rows] for name in EXAMPLES.names if name != "kind"}
    return table(EXAMPLES, columns | {"kind": ["top" if row.quantile is None else "quantile" for row in rows]})
