"""The Hugging Face hub: find the commit that a name means, and fetch files of a commit whole.

Nothing that a hub answers is trusted. Only HF_ENDPOINT's addresses are asked, names and digests are checked before
they become paths, and a file is in the cache only when its bytes have the listed digest.

from pipeline.core.hub import fetch, resolve_commit

commit = resolve_commit("Qwen/Qwen3-0.6B", "main", "model")
snapshot = fetch("Qwen/Qwen3-0.6B", commit, "model", ["config.json", "*.safetensors"])
"""

from pipeline.core.hub.snapshot import Snapshot, fetch, resolve_commit

__all__ = ["Snapshot", "fetch", "resolve_commit"]
