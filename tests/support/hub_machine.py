"""A machine that fetches from a hub, as a process of its own."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.stage_code import ROOT

# the libraries read their environment when they are imported, so each run is a process of its own
DRIVER = """
import json, sys
import pipeline.core.hub.download
pipeline.core.hub.download.PAUSE_SECONDS = 0.01
from pipeline.core.cli import exit_on_user_error

def main():
    from pipeline.core.hub import resolve_commit
    kind, repo, revision, split = sys.argv[1:]
    commit = resolve_commit(repo, revision, kind)
    if kind == "dataset":
        from pipeline.prompts.hub import load_hub_prompts
        table = load_hub_prompts(repo, commit, split, ["prompt", "source", "cluster"])
        print(json.dumps({"commit": commit, "rows": table.to_pylist()}))
    else:
        from pipeline.lm.files import fetch_hub_model, model_files
        directory = fetch_hub_model(repo, commit)
        print(json.dumps({"commit": commit, "files": [str(file) for file in model_files(directory)]}))

exit_on_user_error(main)
"""


@dataclass
class Machine:
    """A machine with an empty Hugging Face cache that asks a hub."""

    home: Path
    endpoint: str

    def run(
        self, kind: str, repo: str, revision: str = "main", split: str = "train", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")
        }
        return subprocess.run(
            [sys.executable, "-c", DRIVER, kind, repo, revision, split],
            env={
                **inherited,
                "PYTHONPATH": str(ROOT),
                "HF_ENDPOINT": self.endpoint,
                "HF_HOME": str(self.home),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_ETAG_TIMEOUT": "1",
                "HF_HUB_DOWNLOAD_TIMEOUT": "2",
                **environment,
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def fetch(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """The result of a run that succeeds."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def error(self, *arguments: str, **environment: str) -> str:
        """The one line of a run that fails."""
        done = self.run(*arguments, **environment)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        assert "Traceback" not in done.stderr
        assert done.returncode == 2
        return lines[0]

    def cached(self, name: str) -> list[Path]:
        """Where a file stands in the cache."""
        return [path for path in self.home.rglob(name) if path.is_file()]


def closed_port() -> str:
    """The address of a hub that is not there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
