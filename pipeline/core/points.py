"""Points: where in a language model activations are taken, written as SITE.LAYER, such as `resid_post.2`."""

import re
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

Site = Literal["resid_post", "layer_delta", "attn_out", "mlp_out"]
SITES: tuple[Site, ...] = get_args(Site)
ALLOWED = f"a point is SITE.LAYER with SITE one of {', '.join(SITES)} and LAYER from 0"


@dataclass(frozen=True, order=True)
class Point:
    """A place in a language model where activations are taken."""

    site: Site
    """What is read there.

    resid_post: the residual stream after the block.
    layer_delta: what the block adds: its output minus its input.
    attn_out, mlp_out: what the attention and the MLP write to the residual stream.
    """
    layer: int
    """Number of the transformer block, from 0."""

    def __post_init__(self) -> None:
        if self.site not in SITES or type(self.layer) is not int or self.layer < 0:
            raise ValueError(ALLOWED)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `SITE.LAYER`. Raise ValueError that says what is allowed."""
        match = re.fullmatch(r"([a-z_]+)\.(0|[1-9][0-9]{0,8})", text) if isinstance(text, str) else None
        if match is None or match[1] not in SITES:
            raise ValueError(f"{text!r:.60} is no point: {ALLOWED}")
        return cls(cast(Site, match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"
