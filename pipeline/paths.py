"""Where the stages leave their files, relative to the project's root (see dvc.yaml)."""

from pathlib import Path

RAW_PROMPTS = Path("data/raw/prompts.parquet")
PROMPTS = Path("data/prompts.parquet")
SPLITS = Path("data/splits.parquet")
TINY_MODEL = Path("models/tiny")
MODEL_LOCK = Path("models/model.lock.json")
ACTIVATIONS = Path("data/activations")
SAES = Path("models/sae")
PROBES = Path("models/probes")
SCORES = Path("data/scores")
METRICS = Path("metrics")
PLOTS = METRICS / "plots"
REPORT = Path("report")
FIGURES = REPORT / "figures"
