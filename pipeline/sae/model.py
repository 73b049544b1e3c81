"""A trained sparse autoencoder, and its file format: that of SAELens 6."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import read_json, replacing, write_json
from pipeline.sae.sparse import Active, sum_over_latents

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SPARSE = 1 / 16  # share of active latents up to which sums over them are faster than a product with all
SAE_LENS_VERSION = "6.54.12"  # whose format this is
TENSORS = {
    "standard": {"W_enc", "b_enc", "W_dec", "b_dec"},
    "topk": {"W_enc", "b_enc", "W_dec", "b_dec"},
    "jumprelu": {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"},
    "gated": {"W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"},
}


class Sae:
    """encode: f = active((x - b_dec) W_enc + b_enc); decode: x' = f W_dec + b_dec.

    W_enc (width, latents), W_dec (latents, width), b_dec (width), all others (latents), all float32. What is
    active depends on the architecture, one of SAELens's: `standard` (ReLU), `topk` (the k largest of each token),
    `jumprelu` (what is above `threshold`), `gated` (what a gate with bias `b_gate` lets through).
    """

    def __init__(self, architecture: str, tensors: dict[str, Tensor], k: int | None = None) -> None:
        self.architecture = architecture
        self.tensors = tensors
        self.k = k
        self.width, self.latents = tensors["W_enc"].shape

    def encode(self, x_ND: Tensor) -> Tensor:
        """Latents (N, latents) of activations (N, width), float32."""
        tensors = self.tensors
        pre = (x_ND.float() - tensors["b_dec"]) @ tensors["W_enc"]
        if self.architecture == "gated":
            magnitude = pre * tensors["r_mag"].exp() + tensors["b_mag"]
            return (pre + tensors["b_gate"] > 0) * magnitude.relu()
        pre = (pre + tensors["b_enc"]).relu()
        if self.architecture == "topk":
            assert self.k is not None
            values, indices = pre.topk(self.k, dim=1, sorted=False)
            return pre.new_zeros(pre.shape).scatter(1, indices, values)
        return pre * (pre > tensors["threshold"]) if self.architecture == "jumprelu" else pre

    def decode(self, latents_NL: Tensor) -> Tensor:
        """Reconstructed activations (N, width); where few latents are active, they alone cost."""
        places = latents_NL.flatten().nonzero()[:, 0]
        if len(places) > SPARSE * latents_NL.numel():
            return latents_NL @ self.tensors["W_dec"] + self.tensors["b_dec"]
        active = Active.of_places(places, *latents_NL.shape)
        values = latents_NL.flatten()[places]
        return sum_over_latents(active, values, self.tensors["W_dec"]) + self.tensors["b_dec"]

    def save(self, folder: Path) -> None:
        """Write cfg.json and sae_weights.safetensors, which `SAE.load_from_disk` of SAELens reads."""
        with replacing(folder / WEIGHTS) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, temporary)
        config = {
            "architecture": self.architecture,
            "d_in": self.width,
            "d_sae": self.latents,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"sae_lens_version": SAE_LENS_VERSION},
        }
        if self.architecture == "topk":
            config["k"] = self.k
        write_json(folder / CONFIG, config)

    @classmethod
    def load(cls, folder: Path) -> "Sae":
        """Raise UserError when the files are missing, damaged, or of an SAE that this class is not."""
        config = read_json(folder / CONFIG)
        try:
            tensors = load_file(folder / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / WEIGHTS} is missing or damaged ({error}): run 'dvc repro'") from None
        architecture = config.get("architecture")
        if architecture not in TENSORS:
            raise UserError(
                f"{folder / CONFIG}: architecture {architecture!r} is not known: use one of {', '.join(TENSORS)}"
            )
        if set(tensors) != TENSORS[architecture]:
            odd = ", ".join(sorted(set(tensors) ^ TENSORS[architecture]))
            raise UserError(f"{folder / WEIGHTS}: tensors missing or not known for {architecture}: {odd}")
        if config.get("normalize_activations", "none") != "none":
            raise UserError(f"{folder / CONFIG}: normalize_activations must be none: fold it into the weights first")
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        if not config.get("apply_b_dec_to_input", True):
            # x W + b = (x - b_dec) W + (b + b_dec W)
            shift = tensors["b_dec"] @ tensors["W_enc"]
            if architecture == "gated":
                tensors["b_gate"] = tensors["b_gate"] + shift
                tensors["b_mag"] = tensors["b_mag"] + shift * tensors["r_mag"].exp()
            else:
                tensors["b_enc"] = tensors["b_enc"] + shift
        return cls(architecture, tensors, config.get("k"))


def fold(
    weights: dict[str, Tensor], mean: Tensor, scale: float, threshold: Tensor | None, architecture: str, k: int
) -> Sae:
    """An Sae for raw activations from weights (W_enc and W_dec both (L, d)) trained on (x - mean) * scale.

    The latents are divided by `scale` as well, so the decoder's rows keep their norm of 1.
    """
    folded = {"W_enc": weights["W_enc"].T, "W_dec": weights["W_dec"], "b_dec": mean + weights["b_dec"] / scale}
    folded |= {name: weights[name] / scale for name in ("b_enc", "b_gate", "b_mag") if name in weights}
    if "r_mag" in weights:
        folded["r_mag"] = weights["r_mag"]
    if threshold is not None:
        folded["threshold"] = threshold / scale
    tensors = {name: tensor.detach().float().cpu() for name, tensor in folded.items()}
    return Sae(architecture, tensors, k if architecture == "topk" else None)
