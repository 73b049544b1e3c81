"""Where in a language model activations are taken: SITE.LAYER, such as `resid_post.2`."""

import re
from dataclasses import dataclass
from typing import Literal, Self, get_args

Site = Literal["resid_post", "layer_delta", "attn_out", "mlp_out"]
SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True, order=True)
class Point:
    """A hook point: `site` at block `layer`, counted from 0.

    resid_post: the residual stream after the block; layer_delta: what the block adds, its output minus its
    input; attn_out and mlp_out: what the attention and the MLP write to the residual stream.
    """

    site: Site
    layer: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `SITE.LAYER`. Raise ValueError that names what is allowed."""
        match = re.fullmatch(r"([a-z_]+)\.(0|[1-9][0-9]*)", text)
        site = next((site for site in SITES if match and match[1] == site), None)
        if match is None or site is None:
            raise ValueError(f"a point is SITE.LAYER with SITE one of {', '.join(SITES)} and LAYER from 0")
        return cls(site, int(match[2]))

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"
