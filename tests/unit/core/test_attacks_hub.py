"""What a hub may answer that is no answer of a hub: one line each, nothing outside the cache, nothing wrong in it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hostile_hub import COMMIT, HostileHub, entry, serving
from hub_attacks import ATTACKS, CACHES, CONFIG, LISTS, MODEL, ROWS, SECRET, Attack

ROOT = Path(__file__).parents[3]

# one process for all, since its imports take seconds; what waits, waits for less
DRIVER = """
import json, sys, time, traceback
from concurrent.futures import ThreadPoolExecutor
import pipeline.core.hub.client as client, pipeline.core.hub.download as download
from pipeline.core.errors import UserError
from pipeline.core.hub import fetch, resolve_commit
from pipeline.prompts.hub import load_hub_prompts

client.ANSWER_SECONDS, client.LIST_SECONDS, client.SLOW_SECONDS = 4, 6, 2
client.MAX_ANSWER_BYTES, client.MAX_PAGES = 1 << 20, 20
download.PAUSE_SECONDS, download.TRIES = 0.01, 2

def run(job):
    repo, kind, revision = job
    start = time.monotonic()
    try:
        commit = resolve_commit(repo, revision, kind)
        if kind == "dataset":
            result = {"rows": load_hub_prompts(repo, commit, "train", ["prompt", "source", "cluster"]).to_pylist()}
        else:
            found = fetch(repo, commit, kind, ["config.json", "*.safetensors"])
            result = {"files": {name: (found.directory / name).read_bytes().hex() for name in found.files}}
    except UserError as error:
        result = {"line": str(error)}
    except BaseException:
        result = {"bug": traceback.format_exc()}
    return result | {"seconds": time.monotonic() - start}

jobs = json.load(sys.stdin)
with ThreadPoolExecutor(16) as pool:
    results = list(pool.map(run, [job for job in jobs if job[1] != "dataset"]))
# one by one, since the whole process is offline while a card is followed
datasets = [run(job) for job in jobs if job[1] == "dataset"]
print(json.dumps([(datasets if job[1] == "dataset" else results).pop(0) for job in jobs]))
"""


@dataclass(frozen=True)
class Outcome:
    """What each attack led to, what an honest hub did after it, and what was seen from outside."""

    hostile: dict[str, dict[str, Any]]
    honest: dict[str, dict[str, Any]]
    hub: HostileHub
    home: Path
    changed_outside: set[Path]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("attacks")
    for name in ["secret.csv", "home/secret.csv", "home/hub/secret.csv"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(SECRET)
    repos = {attack.id: f"a{number}" for number, attack in enumerate(ATTACKS)}
    hub = HostileHub({"": MODEL}, {repos[attack.id]: (attack.stage, attack.answers) for attack in ATTACKS})
    for attack in ATTACKS:
        if attack.card:
            card = attack.card.replace("OTHER", hub.other).replace("SECRETS", str(folder))
            hub.files[repos[attack.id]] = {"README.md": f"---\n{card}\n---\n".encode(), "all.csv": ROWS}
    before = _outside(folder)
    with serving(hub):
        hostile = _run(folder, hub, [_job(attack, repos) for attack in ATTACKS])
        hub.honest = True
        honest = _run(folder, hub, [(f"lab/{repos[attack.id]}", "model", COMMIT) for attack in ATTACKS if attack.stage])
    stages = [attack.id for attack in ATTACKS if attack.stage]
    return Outcome(
        dict(zip(repos, hostile, strict=True)),
        dict(zip(stages, honest, strict=True)),
        hub,
        folder / "home",
        {path for path, _ in _outside(folder) ^ before},
    )


def _job(attack: Attack, repos: dict[str, str]) -> tuple[str, str, str]:
    return (
        f"lab/{repos[attack.id]}",
        "dataset" if attack.card else "model",
        "main" if attack.stage == "revision" else COMMIT,
    )


def _outside(folder: Path) -> set[tuple[Path, bytes]]:
    """All files but those below the folders of the repositories in the cache."""
    return {
        (path, path.read_bytes())
        for path in folder.rglob("*")
        if (path.is_file() and not path.is_relative_to(folder / "home/hub/")) or path.name == "secret.csv"
    }


def _run(folder: Path, hub: HostileHub, jobs: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")
    }
    settings = {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_ETAG_TIMEOUT": "3",
        "HF_HUB_DOWNLOAD_TIMEOUT": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env=inherited | settings,
        cwd=folder,
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def _named(attack: Attack) -> str:
    return attack.id


@pytest.mark.parametrize("attack", ATTACKS, ids=_named)
def test_attack_ends_in_one_line_or_does_nothing(outcome: Outcome, attack: Attack) -> None:
    result = outcome.hostile[attack.id]
    assert "bug" not in result, result["bug"]
    if attack.part:
        assert attack.part in result.get("line", ""), result
        assert result["line"].isprintable()
    elif attack.card:
        assert result["rows"] == [{"prompt": "A prompt", "source": "made", "cluster": "1"}]
    else:
        assert result["files"] == {name: content.hex() for name, content in MODEL.items()}
    assert result["seconds"] < 30  # all ends by the driver's few seconds, on a machine that has other things to do


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.stage], ids=_named)
def test_honest_hub_afterwards_gives_the_right_files(outcome: Outcome, attack: Attack) -> None:
    assert outcome.honest[attack.id].get("files") == {name: content.hex() for name, content in MODEL.items()}


def test_nothing_outside_the_cache_is_written_or_deleted(outcome: Outcome) -> None:
    assert not outcome.changed_outside


def test_nothing_in_the_cache_leads_out_of_it(outcome: Outcome) -> None:
    cache = outcome.home / "hub"
    assert all(path.resolve().is_relative_to(cache) for path in cache.rglob("*"))
    assert not list(cache.rglob("*.incomplete"))


def test_no_other_host_gets_the_token(outcome: Outcome) -> None:
    others = [request for request in outcome.hub.requests if not request.host.startswith("127.0.0.1")]
    assert others and not any(request.token for request in others)
    hub = [request for request in outcome.hub.requests if request.host.startswith("127.0.0.1")]
    assert hub and all(request.token for request in hub)


def test_no_card_leads_to_a_request(outcome: Outcome) -> None:
    assert not [request for request in outcome.hub.requests if "secret" in request.path]


@dataclass(frozen=True)
class Damage:
    """What the second run made of a cache that was changed after a first, and the files that were outside it."""

    links: dict[str, dict[str, Any]]
    lists: dict[str, dict[str, Any]]
    folder: Path


@pytest.fixture(scope="module")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    folder = tmp_path_factory.mktemp("damage")
    names = [f"a{number}" for number in range(len(CACHES) + len(LISTS))]
    jobs = [(f"lab/{name}", "model", COMMIT) for name in names]
    (folder / "outside").mkdir()
    with serving(HostileHub({"": MODEL}, {})) as hub:
        assert all("files" in result for result in _run(folder, hub, jobs))
        digest = entry("config.json", CONFIG)["oid"]
        for name, place in zip(names, CACHES.values(), strict=False):
            inside = folder / f"home/hub/models--lab--{name}" / place.format(commit=COMMIT, digest=digest)
            inside.rename(folder / "outside" / name)
            inside.symlink_to(folder / "outside" / name)
            for file in [folder / "outside" / name, *(folder / "outside" / name).rglob("*")]:
                if file.is_file():
                    file.write_bytes(SECRET)
        for name, text in zip(names[len(CACHES) :], LISTS.values(), strict=True):
            (folder / f"home/hub/models--lab--{name}/trees/{COMMIT}.json").write_text(text)
        before = _outside(folder)
        results = _run(folder, hub, jobs)
    assert _outside(folder) == before
    links, lists = results[: len(CACHES)], results[len(CACHES) :]
    return Damage(dict(zip(CACHES, links, strict=True)), dict(zip(LISTS, lists, strict=True)), folder)


@pytest.mark.parametrize("place", CACHES)
def test_link_that_leads_out_of_the_cache_is_not_followed(damage: Damage, place: str) -> None:
    assert "leads out of the Hugging Face cache: delete it" in damage.links[place].get("line", ""), damage.links[place]


@pytest.mark.parametrize("change", LISTS)
def test_list_in_the_cache_that_is_none_is_fetched_anew(damage: Damage, change: str) -> None:
    assert damage.lists[change].get("files") == {name: content.hex() for name, content in MODEL.items()}
