"""All comparisons of the arms, as metrics/probes.json has them."""

from typing import Any

from pipeline.judging.comparisons.balanced import balanced_metrics, k_aurocs
from pipeline.judging.comparisons.difficulty import by_similarity, hard, within_templates
from pipeline.judging.comparisons.subsets import by_cluster, harmless, natural
from pipeline.judging.comparisons.trained_otherwise import in_setting, with_seeds
from pipeline.judging.label_noise import label_noise
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.settings import FULL


def compare(board: Scoreboard) -> dict[str, Any]:
    """Metrics by setting or question; below that in most by an arm's points and name."""
    prompts = board.prompts
    results = {
        FULL: balanced_metrics(board),
        "natural": natural(board),
        "k": k_aurocs(board),
        "benign": harmless(board),
        "hard": hard(board),
        "by_similarity": by_similarity(board),
        "within_templates": within_templates(board),
        "by_cluster": by_cluster(board),
        "label_noise": {
            side: label_noise(prompts, rows, board.judge.confidence)
            for side, rows in (("train", prompts.train), ("test", prompts.test))
        },
    }
    results |= {setting: in_setting(board, setting) for setting in board.other_settings()}
    if len(board.prompts_by_seed) > 1:
        results["seeds"] = with_seeds(board)
    return results
