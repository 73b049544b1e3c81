"""The Hugging Face hub: the commit that a name means, files that are whole, and each failure in one line."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from logging import ERROR
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_hf_file_metadata,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, httpx, logging  # type: ignore[attr-defined]

from pipeline.errors import UserError
from pipeline.files import sha256_of
from pipeline.progress import progress

Kind = Literal["dataset", "model"]

_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECTION = {"dataset": "data", "model": "model"}
_OFFLINE_SOURCES = {"dataset": "sample or local", "model": "tiny or local"}
_UNREACHABLE = (httpx.ConnectError, httpx.TimeoutException, httpx.ProxyError, httpx.UnsupportedProtocol)
_TRIES = 3


def resolve_commit(repo: str, revision: str, kind: Kind) -> str:
    """The full commit (40 hex digits) that a branch, tag or commit of a repository means now.

    A full commit is returned as it is, with no request, so that what is in the cache can be used offline.
    Raise UserError as `explained` does.
    """
    if _FULL_COMMIT.fullmatch(revision):
        return revision
    with explained(repo, revision, kind):
        return _ask_for_commit(repo, revision, kind)


def fetch(repo: str, commit: str, kind: Kind, patterns: list[str], ignore: list[str] | None = None) -> Path:
    """Have the files of a commit in the Hugging Face cache, each as long as the hub says and with its digest.

    A snapshot that is complete in the cache needs no network; an incomplete one is completed.

    Args:
        commit: 40 hex digits.
        patterns: which files, with `*` for any characters, slashes among them.
        ignore: which of them to leave out.

    Returns: the directory with the files.
    Raises: UserError as `explained` does, and for damaged files, which are deleted.
    """
    which: dict[str, Any] = {"repo_id": repo, "repo_type": kind, "revision": commit}
    filters: dict[str, Any] = {"allow_patterns": patterns, "ignore_patterns": ignore}
    with explained(repo, commit, kind):
        directory = _from_cache(which, filters)
        if directory is None:
            _ask_for_commit(repo, commit, kind)  # fails at once where downloads retry for half a minute
            directory = _download(which | filters)
        listed = get_cached_repo_tree(**which)
        wanted = [file for file in listed if _matches(file, patterns) and not _matches(file, ignore or [])]
        damaged = _remove_damaged(directory, wanted, repo, kind)
    if damaged:
        raise UserError(
            f"{_name(repo, kind)}: {', '.join(damaged)} in the cache differs in size or checksum from what "
            f"{constants.ENDPOINT} lists: it is deleted now, run again to fetch it anew"
        )
    return directory


@contextmanager
def explained(repo: str, revision: str, kind: Kind) -> Iterator[None]:
    """Turn what goes wrong between this machine and the hub into a UserError of one line, quietly.

    Args:
        repo, revision, kind: what is being asked for, to be named in the line.

    Raises: UserError for a repository or revision that is not there or not accessible, for a hub that is out
    of reach or fails, and for a download that breaks off. Everything else passes.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(ERROR)  # its warnings of each retry would bury the one line
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for cause in _causes(error):
            line = _explanation(cause, repo, revision, kind)
            if line:
                raise UserError(line) from error
        raise
    finally:
        logging.set_verbosity(verbosity)


def _ask_for_commit(repo: str, revision: str, kind: Kind) -> str:
    timeout = constants.HF_HUB_ETAG_TIMEOUT  # the library's own default is to wait for ever
    commit = HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=timeout).sha
    if commit is None:
        raise UserError(_not_a_hub(_name(repo, kind)))
    return commit


def _from_cache(which: dict[str, Any], filters: dict[str, Any]) -> Path | None:
    try:
        get_cached_repo_tree(**which)  # without this list, an incomplete snapshot passes for a whole one
        return Path(snapshot_download(**which, **filters, local_files_only=True))
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None


def _download(what: dict[str, Any]) -> Path:
    if not sys.stderr.isatty() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()  # one of its bars would fill a log
    for _ in range(_TRIES):
        try:
            return Path(snapshot_download(**what))
        except httpx.ReadError as error:  # the library itself tries again after all but a reset connection
            reset = error
    raise reset


def _matches(file: RepoFile, patterns: list[str]) -> bool:
    return any(fnmatchcase(file.path, pattern) for pattern in patterns)


def _remove_damaged(directory: Path, files: list[RepoFile], repo: str, kind: Kind) -> list[str]:
    damaged = []
    with progress(sum(file.size for file in files), f"checking {repo}", "B") as bar:
        for file in files:
            path = directory / file.path
            if path.is_symlink():
                etag = path.readlink().name  # the cache names its blobs so
            else:  # a cache on a file system without symlinks
                etag = _ask_for_etag(hf_hub_url(repo, file.path, repo_type=kind, revision=directory.name))
            if path.stat().st_size != file.size or not _has_digest(path, file, etag, bar.update):
                damaged.append(file.path)
                _delete(path)
    return damaged


def _ask_for_etag(url: str) -> str:
    try:
        return get_hf_file_metadata(url).etag or ""
    except (*_UNREACHABLE, OfflineModeIsEnabled):
        return ""


def _has_digest(path: Path, file: RepoFile, etag: str, update: Callable[[int], object]) -> bool:
    """Whether the content is what its ETag says: the sha256 of a large file, git's id of a small one."""
    if _SHA256.fullmatch(etag):
        return sha256_of(path, update) == etag
    update(file.size)
    if etag == file.blob_id:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == etag
    return True  # no ETag, or that of a mirror that makes its own


def _delete(path: Path) -> None:
    """Delete a file of the cache with all that its symlinks lead through."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explanation(error: BaseException, repo: str, revision: str, kind: Kind) -> str | None:
    section, name, hub = _SECTION[kind], _name(repo, kind), constants.ENDPOINT
    offline = f"set {section}.source to {_OFFLINE_SOURCES[kind]}"
    if isinstance(error, HFValidationError):
        return f"{section}.repo = {repo} cannot be the name of a {kind}: write it as on {hub}"
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repo, revision, kind)
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{name} at {revision} is not complete in the cache, and HF_HUB_OFFLINE forbids to fetch it: "
            f"unset it, or {offline}"
        )
    if isinstance(error, _UNREACHABLE):
        return (
            f"{hub} cannot be reached for {name} ({_reason(error)}): check the network, the proxy and "
            f"HF_ENDPOINT; offline, {offline}, or {section}.revision to a full commit that was fetched before"
        )
    if isinstance(error, httpx.RequestError):
        return (
            f"the download of {name} broke off and could not be resumed ({_reason(error)}): run again, files "
            "that are complete are kept"
        )
    if _is_of_xet(error):
        return (
            f"the download of {name} from the hub's chunk storage failed ({_reason(error)}): run again, or "
            "set HF_HUB_DISABLE_XET=1 to fetch the files in one piece"
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return (
            f"{hub} sent a file of {name} that is too short or too long ({_reason(error)}): it is deleted, "
            "run again to fetch it anew"
        )
    if isinstance(error, FileMetadataError | json.JSONDecodeError):
        return _not_a_hub(name)
    if isinstance(error, CachedRepoTreeNotFoundError):
        return (
            f"the list of files of {name} could not be fetched or kept: run again, and check that "
            f"{constants.HF_HUB_CACHE} can be written"
        )
    if isinstance(error, PermissionError):
        return f"{name} cannot be kept in the cache ({_reason(error)}): set HF_HOME to a folder of yours"
    return None


def _is_of_xet(error: BaseException) -> bool:
    # most errors of its compiled code arrive as a RuntimeError with a long text
    if isinstance(error, RuntimeError):
        return "CAS Client" in str(error)
    return type(error).__module__ == "hf_xet"


def _refusal(error: HfHubHTTPError, repo: str, revision: str, kind: Kind) -> str:
    section, name, hub = _SECTION[kind], _name(repo, kind), constants.ENDPOINT
    page = f"{hub}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    login = "run 'hf auth login' (or 'huggingface-cli login') or set HF_TOKEN"
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        who = "you are not logged in" if status == 401 else "your account is not admitted"
        return f"{name} is gated and {who} (HTTP {status}): accept its conditions on {page}, then {login}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{section}.repo = {repo}: {hub} has no such {kind}, or it is private (HTTP {status}): correct "
            f"the name; for a private one, {login}"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{section}.revision = {revision}: {kind} {repo} has no such branch, tag or commit: take one of "
            f"{page}/commits/main (quote a commit)"
        )
    if status in (401, 403):
        return (
            f"{hub} refuses {name} (HTTP {status}): the access token is not valid, or has no right to it, or "
            f"the repository is disabled: look at {page}, then {login}"
        )
    if status == 429:
        return f"{hub} refuses {name} for now (HTTP 429, too many requests): wait some minutes and run again"
    if status >= 500:
        return f"{hub} fails for {name} (HTTP {status}): that is the server's fault, run again after a while"
    return f"{hub} answered HTTP {status} for {name} at {revision}: look at {page}, and run again"


def _not_a_hub(name: str) -> str:
    return (
        f"{constants.ENDPOINT} does not answer like a Hugging Face hub for {name}: check HF_ENDPOINT, the "
        "proxy and whether the network wants a login"
    )


def _name(repo: str, kind: Kind) -> str:
    return f"{kind} {repo} ({_SECTION[kind]}.repo)"


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
