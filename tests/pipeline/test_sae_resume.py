"""SAE training that was killed goes on and ends with the same bytes."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.stage_code import ROOT

KILLS = 5
PROGRAM = """
import sys, torch
from pathlib import Path
from pipeline.sae.train import train_sae
torch.set_num_threads(1)
architecture, seed = sys.argv[1], int(sys.argv[2])
acts = torch.randn(4000, 16, generator=torch.Generator().manual_seed(seed)).cumsum(1)
curve = []
sae = train_sae(
    acts[:3600], held_out=acts[3600:], architecture=architecture, width=64, k=4, batch_size=60, epochs=6,
    checkpoint=Path("checkpoint.safetensors"), checkpoint_seconds=0.0, on_step=lambda *point: curve.append(point),
)
sae.save(Path("sae"))
Path("curve").write_text(repr(curve))
"""


def start(folder: Path, architecture: str, seed: int = 0) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, architecture, str(seed)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )


def outcome(folder: Path) -> dict[str, str]:
    names = ("sae/sae_weights.safetensors", "sae/cfg.json", "curve")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("architecture", ["batch_topk", "jump_relu"])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(architecture: str, tmp_path: Path) -> None:
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    plain.mkdir()
    killed.mkdir()
    assert start(plain, architecture).wait() == 0
    rng = random.Random(1)
    resumed = 0
    for _ in range(KILLS):
        checkpoint = killed / "checkpoint.safetensors"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(killed, architecture)
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed += before > 0
    assert resumed >= 2
    assert start(killed, architecture).wait() == 0
    assert outcome(killed) == outcome(plain)
    assert not checkpoint.exists()


def test_a_checkpoint_of_other_data_is_not_used(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    assert start(plain, "topk").wait() == 0
    process = start(other, "topk", seed=1)
    while not (other / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(other, "topk").wait() == 0
    assert outcome(other) == outcome(plain)
