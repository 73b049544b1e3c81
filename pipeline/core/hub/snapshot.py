"""Get files of a commit from the cache or the hub, each with the size and digest that the hub lists."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.hub.cache import Cache
from pipeline.core.hub.client import Client
from pipeline.core.hub.download import download
from pipeline.core.hub.listing import RepoFile
from pipeline.core.hub.repo import Kind, Repo
from pipeline.core.progress import progress

AT_A_TIME = 4  # files
Files = dict[str, RepoFile]  # by their paths in the repository
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A commit's directory in the cache, and which files in it were checked. There may be others."""

    directory: Path
    files: list[str]  # paths below the directory


def resolve_commit(repo: str, revision: str, kind: Kind) -> str:
    """Return the full commit (40 hex digits) that a branch, tag or commit of a repository means now.

    A full commit is returned as it is, without a request, so that files in the cache can be used offline.

    Raises: UserError as `fetch` does.
    """
    if _COMMIT.fullmatch(revision):
        return revision

    async def ask() -> str:
        async with Client(Repo(repo, kind), revision) as client:
            return await client.commit()

    return asyncio.run(ask())


def fetch(repo: str, commit: str, kind: Kind, patterns: list[str], ignore: list[str] | None = None) -> Snapshot:
    """Get the files of a commit into the Hugging Face cache, each with the size and digest that the hub lists.

    A snapshot that is complete in the cache needs no network. An incomplete one is completed.

    Args:
        commit: 40 hex digits.
        patterns: which files; `*` stands for any characters, including slashes.
        ignore: which of them to leave out.

    Raises: UserError for a repository or commit that does not exist or is not accessible, for a hub that is out of
        reach, fails, is too slow or does not answer like one, for a download that breaks off, and for damaged files,
        which are deleted.
    """
    if not _COMMIT.fullmatch(commit):
        raise ValueError(f"{commit} is not a full commit")
    which = Repo(repo, kind)
    cache = Cache(which, commit)

    def wanted(files: Files) -> Files:
        return {path: file for path, file in files.items() if _fits(path, patterns) and not _fits(path, ignore or [])}

    files = wanted(cache.files() or {})
    if not files or not all(cache.has(path) for path in files):
        files = wanted(asyncio.run(_complete(which, commit, cache, wanted)))
    if not files:
        raise UserError(f"{which} at {commit} has none of the files {', '.join(patterns)}: choose another")
    _check(which, cache, files)
    return Snapshot(cache.directory, sorted(files))


async def _complete(repo: Repo, commit: str, cache: Cache, wanted: Callable[[Files], Files]) -> Files:
    """Fetch the files that are missing. Return the list of all files of the commit."""
    async with Client(repo, commit) as client:
        listed = await client.files()
        # a list in the cache is only of use while it is complete: it may be that of another hub
        missing = {
            path: file for path, file in wanted(listed).items() if not (cache.has(path) or cache.link(path, file))
        }
        size = sum(file.size for file in missing.values())
        cache.check_space(size)
        places = asyncio.Semaphore(AT_A_TIME)
        with progress(size, f"fetching {repo.name}", "B") as bar:

            async def one(path: str, file: RepoFile) -> None:
                async with places:
                    await download(client, cache, path, file, bar.update)

            try:
                async with asyncio.TaskGroup() as group:
                    for path, file in missing.items():
                        group.create_task(one(path, file))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None  # the others were stopped for it
    cache.keep_files(listed)  # after the files: what could not be fetched may be a wrong list's fault
    return listed


def _check(repo: Repo, cache: Cache, files: Files) -> None:
    """Raise UserError for files in the cache that differ from the list, and delete them."""
    damaged = []
    with progress(sum(file.size for file in files.values()), f"checking {repo.name}", "B") as bar:
        for path, file in files.items():
            if not file.is_whole(cache.path(path), bar.update):
                damaged.append(path)
                cache.delete(path, file)
    if damaged:
        raise repo.damaged(damaged)


def _fits(path: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
