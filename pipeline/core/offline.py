"""Keep libraries from sending requests to the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants


@contextmanager
def offline() -> Iterator[None]:
    """Forbid requests to the hub within the block, whatever a file asks for: only local files can be loaded."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
