"""A repository of the hub: its addresses, and one line for each thing that can go wrong with it."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from pipeline.core.errors import UserError, one_line

Kind = Literal["dataset", "model"]

_SECTION = {"dataset": "data", "model": "model"}
_OFFLINE_SOURCES = {"dataset": "sample or local", "model": "tiny or local"}
_LOGIN = "run 'hf auth login' (or 'huggingface-cli login') or set HF_TOKEN"


class Refusal(UserError):
    """An answer whose HTTP status refuses the request."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.may_pass = status in (408, 429) or status >= 500  # asked again, the hub may answer


@dataclass(frozen=True)
class Repo:
    """A dataset or a model of the hub. Raises UserError for a name that none can have."""

    name: str
    kind: Kind

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.name)
        except HFValidationError:
            raise UserError(
                f"{self.section}.repo = {self.name} cannot be the name of a {self.kind}: "
                f"write it as on {constants.ENDPOINT}"
            ) from None

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.section}.repo)"

    @property
    def section(self) -> str:
        """The section of params.yaml that names it."""
        return _SECTION[self.kind]

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def api(self, what: str, revision: str) -> str:
        return f"{constants.ENDPOINT}/api/{self.kind}s/{self.name}/{what}/{quote(revision, safe='')}"

    def file(self, commit: str, path: str) -> str:
        return f"{self.page}/resolve/{commit}/{quote(path)}"

    def not_a_hub(self, why: str) -> UserError:
        return UserError(
            f"{constants.ENDPOINT} does not answer like a Hugging Face hub for {self} ({why}): check HF_ENDPOINT, the "
            "proxy and whether the network wants a login"
        )

    def unreachable(self, error: Exception) -> UserError:
        return UserError(
            f"{constants.ENDPOINT} cannot be reached for {self} ({_reason(error)}): check the network, the proxy and "
            f"HF_ENDPOINT; offline, {self._offline()}, or {self.section}.revision to a full commit that was fetched "
            "before"
        )

    def too_slow(self, what: str) -> UserError:
        return UserError(
            f"{constants.ENDPOINT} is too slow for {self} ({what}): check the network and the proxy and run again, "
            "files that are complete are kept"
        )

    def broken_off(self, error: Exception) -> UserError:
        return UserError(
            f"the download of {self} broke off and could not be resumed ({_reason(error)}): run again, files "
            "that are complete are kept"
        )

    def forbidden(self, revision: str) -> UserError:
        return UserError(
            f"{self} at {revision} is not complete in the cache, and HF_HUB_OFFLINE forbids to fetch it: unset it, or "
            f"{self._offline()}"
        )

    def wrong_length(self, path: str) -> UserError:
        return UserError(
            f"{constants.ENDPOINT} sent a file of {self} that is too short or too long ({one_line(path, 200)}): "
            "it is not kept, run again to fetch it anew"
        )

    def damaged(self, paths: list[str]) -> UserError:
        return UserError(
            f"{self}: {one_line(', '.join(paths), 200)} in the cache differs in size or checksum from what "
            f"{constants.ENDPOINT} lists: it is deleted now, run again to fetch it anew"
        )

    def wrong_bytes(self, path: str) -> UserError:
        return UserError(
            f"{self}: {one_line(path, 200)} that was sent differs in checksum from what {constants.ENDPOINT} lists: "
            "it is not kept, run again to fetch it anew"
        )

    def refused(self, status: int, code: str, message: str, revision: str) -> Refusal:
        """Return the error for a status of 400 or more. `code` and `message` are the hub's own words."""
        return Refusal(self._refusal(status, code, message, revision), status)

    def _refusal(self, status: int, code: str, message: str, revision: str) -> str:
        hub = constants.ENDPOINT
        if code == "GatedRepo":
            who = "you are not logged in" if status == 401 else "your account is not admitted"
            return f"{self} is gated and {who} (HTTP {status}): accept its conditions on {self.page}, then {_LOGIN}"
        if code == "RepoNotFound" or (status == 401 and message != "Invalid credentials in Authorization header"):
            return (
                f"{self.section}.repo = {self.name}: {hub} has no such {self.kind}, or it is private (HTTP {status}): "
                f"correct the name; for a private one, {_LOGIN}"
            )
        if code == "RevisionNotFound":
            return (
                f"{self.section}.revision = {revision}: {self.kind} {self.name} has no such branch, tag or commit: "
                f"take one of {self.page}/commits/main (quote a commit)"
            )
        if status in (401, 403):
            return (
                f"{hub} refuses {self} (HTTP {status}): the access token is not valid, or has no right to it, or the "
                f"repository is disabled: look at {self.page}, then {_LOGIN}"
            )
        if status == 429:
            return f"{hub} refuses {self} for now (HTTP 429, too many requests): wait some minutes and run again"
        if status >= 500:
            return f"{hub} fails for {self} (HTTP {status}): that is the server's fault, run again after a while"
        return f"{hub} answered HTTP {status} for {self} at {revision}: look at {self.page}, and run again"

    def _offline(self) -> str:
        return f"set {self.section}.source to {_OFFLINE_SOURCES[self.kind]}"


def _reason(error: Exception) -> str:
    """Return the first line of an error, without characters that a terminal would obey."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return one_line(line, 200)
