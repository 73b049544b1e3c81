"""Check environment variables that libraries read when they are imported, and fail at."""

import os
from urllib.parse import urlsplit

from pipeline.core.errors import UserError

_SECONDS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")


def check_environment() -> None:
    """Raise UserError that names a variable of the Hugging Face libraries which they could not read."""
    for name in _SECONDS:
        value = os.environ.get(name)
        if value is not None and not (value.isascii() and value.isdigit()):
            raise UserError(
                f"{name} = {value!r} in the environment is no number of seconds: set it to one, or unset it"
            )
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
        endpoint.encode()
    except ValueError:
        raise UserError(f"HF_ENDPOINT = {endpoint!r} in the environment is no address: correct or unset it") from None
