"""Every plot described once: what `dvc plots` and the pictures of the report call it and its axes.

`make deps` writes what is said here into dvc.yaml. The stage that computes a plot knows its columns and imports nothing
of this, so that a better title computes nothing anew.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plot:
    """One plot, by the name of its file in metrics/plots and of its picture in report/figures.

    x, y: columns of the file, or what the picture alone shows; x_label, y_label: what they are.
    template: of .dvc/plots; empty: `dvc plots` does not draw it.
    caption: below the picture; empty: the title.
    diagonal: whether the picture has one, which a perfect, or a random, arm would be on.
    spread: a column whose values the picture draws as a band to both sides of y; empty: none.
    """

    title: str
    x: str
    y: str
    x_label: str
    y_label: str
    template: str = ""
    caption: str = ""
    diagonal: bool = False
    spread: str = ""

    @property
    def is_logarithmic(self) -> bool:
        """Whether x is on a logarithmic scale, base 2."""
        return self.template.endswith("_log")


OF_ARMS = {
    "roc": Plot(
        title="ROC on the balanced test prompts",
        x="fpr",
        y="tpr",
        x_label="false positive rate",
        y_label="true positive rate",
        template="lines_by_arm",
        diagonal=True,
    ),
    "k_frontier": Plot(
        title="AUROC of classifiers on k features",
        x="k",
        y="auroc",
        x_label="features that a classifier may use (k)",
        y_label="AUROC",
        template="lines_by_arm_log",
    ),
    "precision_recall": Plot(
        title="Precision and recall on the balanced test prompts",
        x="recall",
        y="precision",
        x_label="recall",
        y_label="precision",
        template="lines_by_arm",
    ),
    "reliability": Plot(
        title="Reliability on the balanced test prompts",
        x="probability",
        y="share_of_targets",
        x_label="mean probability in a bin",
        y_label="share of targets",
        template="lines_by_arm",
        diagonal=True,
    ),
    "similarity": Plot(
        title="AUROC by similarity to train",
        x="similarity",
        y="auroc",
        x_label="similarity to the nearest train prompt (median of a fifth of the balanced test prompts)",
        y_label="AUROC",
        template="lines_by_arm",
        caption="AUROC on fifths of the balanced test prompts, by similarity to the nearest train prompt",
    ),
    "scarcity": Plot(
        title="AUROC of classifiers trained on few prompts",
        x="train_prompts",
        y="auroc",
        x_label="train prompts",
        y_label="AUROC (mean of draws)",
        template="lines_by_arm_log",
        caption="AUROC of classifiers trained on few prompts; band: standard deviation over draws",
        spread="auroc_std",
    ),
    "noise": Plot(
        title="AUROC of classifiers trained on labels flipped at random",
        x="percent_flipped",
        y="auroc",
        x_label="train labels flipped (%)",
        y_label="AUROC (mean of draws)",
        template="lines_by_arm",
        caption="AUROC of classifiers trained on labels flipped at random; band: standard deviation over draws",
        spread="auroc_std",
    ),
    "arms": Plot(
        title="AUROC of every arm, with its interval",
        x="auroc",
        y="arm",
        x_label="AUROC",
        y_label="arm",
    ),
}
OF_PROMPTS = {
    "source_by_cluster": Plot(
        title="Prompts by source and cluster, before the filter",
        x="cluster",
        y="prompts",
        x_label="cluster",
        y_label="prompts",
        template="bars_by_source",
    ),
    "prompt_length": Plot(
        title="Prompt lengths before the filter",
        x="characters",
        y="prompts",
        x_label="prompt length (characters)",
        y_label="prompts",
        template="bars",
        caption="Prompt lengths before the filter, with the cut for short ones",
    ),
    "mean_length": Plot(
        title="Mean prompt length by source and cluster, before the filter",
        x="cluster",
        y="characters",
        x_label="cluster",
        y_label="mean length (characters)",
        template="bars_by_source",
    ),
}
OF_SAE = {
    "sae": Plot(
        title="Training",
        x="step",
        y="fvu",
        x_label="optimizer step",
        y_label="FVU, share of dead latents",
        template="sae_training",
        caption="Training: variance left unexplained, and latents that have not been active for long",
    ),
    "sae_density": Plot(
        title="Density of latents on held-out prompts",
        x="density",
        y="latents",
        x_label="share of tokens on which a latent is active (lower end of the bin)",
        y_label="latents",
        template="bars",
        caption="On how many tokens latents are active; dead, ultra-low, normal and high",
    ),
    "sae_l0": Plot(
        title="Active latents per token on held-out prompts",
        x="percent_of_tokens",
        y="active_latents",
        x_label="tokens with at most so many (%)",
        y_label="active latents per token (L0)",
        template="line",
        caption="How many latents are active on a token",
    ),
    "sae_cosine": Plot(
        title="Encoder against decoder directions",
        x="density",
        y="encoder_decoder_cosine",
        x_label="share of tokens on which a latent is active (lower end of the bin)",
        y_label="cosine, mean of the bin's latents",
        caption="Cosine of encoder and decoder direction, by density",
    ),
    "sae_frontier": Plot(
        title="SAEs on held-out prompts",
        x="l0",
        y="fvu",
        x_label="L0: active latents per token (mean)",
        y_label="FVU: fraction of variance unexplained",
        caption="Variance left unexplained against active latents, beside the other SAEs of this run",
    ),
}
INTERVENTIONS = Plot(
    title="Probability as tokens are removed (deletion) or kept (insertion)",
    x="share_of_tokens",
    y="probability",
    x_label="share of the tokens, in the order of an attribution",
    y_label="mean probability of the target",
    template="deletion",
)
PLOTS = {**OF_ARMS, **OF_PROMPTS, **OF_SAE, "interventions": INTERVENTIONS}
