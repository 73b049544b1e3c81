"""A trained sparse autoencoder, and its file format: that of SAELens 6."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import read_json, replacing, write_json
from pipeline.sae.architectures import keep_top_k

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAE_LENS_VERSION = "6.54.12"  # whose format this is


class Sae:
    """encode: f = select((x - b_dec) W_enc + b_enc); decode: x' = f W_dec + b_dec.

    W_enc (width, latents), b_enc (latents), W_dec (latents, width) with rows of norm 1, b_dec (width), all
    float32. Which latents stay: the k largest of each token (topk), or those above `threshold` (latents)
    (jumprelu: Rajamanoharan et al. 2024, "Jumping Ahead").
    """

    def __init__(self, tensors: dict[str, Tensor], k: int | None) -> None:
        self.tensors = tensors
        self.k = k
        self.threshold = tensors.get("threshold")
        self.width, self.latents = tensors["W_enc"].shape

    @property
    def architecture(self) -> str:
        return "topk" if self.threshold is None else "jumprelu"

    def encode(self, x_ND: Tensor) -> Tensor:
        """Latents (N, latents) of activations (N, width), float32."""
        pre = (x_ND.float() - self.tensors["b_dec"]) @ self.tensors["W_enc"] + self.tensors["b_enc"]
        if self.threshold is None:
            assert self.k is not None
            return keep_top_k(pre, self.k)
        return pre * (pre > self.threshold)

    def decode(self, latents_NL: Tensor) -> Tensor:
        """Reconstructed activations (N, width)."""
        return latents_NL @ self.tensors["W_dec"] + self.tensors["b_dec"]

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
        if self.k is not None:
            config["k"] = self.k
        write_json(folder / CONFIG, config)

    @classmethod
    def load(cls, folder: Path) -> "Sae":
        """Raise UserError when the files are missing or damaged."""
        config = read_json(folder / CONFIG)
        try:
            tensors = load_file(folder / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / WEIGHTS} is missing or damaged ({error}): run 'dvc repro'") from None
        return cls(tensors, config.get("k"))


def fold(weights: dict[str, Tensor], mean: Tensor, scale: float, threshold: Tensor | None, k: int | None) -> Sae:
    """An Sae for raw activations from weights trained on (x - mean) * scale.

    The latents are divided by `scale` as well, so the decoder's rows keep their norm of 1.
    """
    folded = {
        "W_enc": weights["W_enc"],
        "b_enc": weights["b_enc"] / scale,
        "W_dec": weights["W_dec"],
        "b_dec": mean + weights["b_dec"] / scale,
    }
    if threshold is not None:
        folded["threshold"] = (threshold / scale).expand(len(weights["b_enc"])).contiguous()
    return Sae({name: tensor.detach().float() for name, tensor in folded.items()}, k)
