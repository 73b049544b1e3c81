"""A trained sparse autoencoder, and its file format: that of SAELens 6."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.core.errors import FileError, UserError, shown
from pipeline.core.files import read_json, replacing, write_json
from pipeline.core.system_errors import system_line
from pipeline.sae.check import (
    check_activations,
    check_architecture,
    check_config,
    check_k,
    checked_device,
    checked_tensors,
)
from pipeline.sae.sparse import Active, sum_over_latents

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SPARSE = 1 / 16  # share of active latents up to which sums over them are faster than a product with all
SAE_LENS_VERSION = "6.54.12"  # whose format this is
REMEDY = f"give a folder with {CONFIG} and {WEIGHTS}, as Sae.save and SAELens write them"


class Sae:
    """A sparse autoencoder: encode is f = active((x - b_dec) W_enc + b_enc), decode is x' = f W_dec + b_dec.

    W_enc (width, latents), W_dec (latents, width), b_dec (width), and all other tensors (latents), are float32. What is
    active depends on the architecture, which is one of SAELens's:

    standard: positive latents (ReLU).
    topk: the k largest of each token.
    jumprelu: latents above `threshold`.
    gated: latents that a gate with bias `b_gate` lets through.
    """

    def __init__(self, architecture: str, tensors: Mapping[str, Tensor], k: int | None = None) -> None:
        """Take tensors of any float type. Raise UserError when they, or k, do not make such an SAE."""
        check_architecture(architecture)
        self.architecture = architecture
        self.tensors = checked_tensors(architecture, tensors)
        self.width, self.latents = self.tensors["W_enc"].shape
        check_k(architecture, k, self.latents)
        self.k = k

    def __repr__(self) -> str:
        k = f", k {self.k}" if self.k is not None else ""
        return f"Sae({self.architecture}{k}, width {self.width}, latents {self.latents}, device {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the tensors are. What is encoded or decoded must be there, too."""
        return self.tensors["W_enc"].device

    def to(self, device: str | torch.device) -> Self:
        """Move the SAE to the device, as torch.nn.Module does, and return it. Raise UserError without such a device."""
        device = checked_device(device)
        self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self

    def encode(self, x: Tensor) -> Tensor:
        """Return latents (..., latents), float32, of activations (..., width) of any float type.

        A token's latents depend on that token alone. NaN and infinity are not checked for; as in any product, their
        results are not finite.

        Raises: UserError when shape, type or device do not fit.
        """
        check_activations(x, self.width, self.device, "what is to be encoded")
        tensors = self.tensors
        pre = (x.float() - tensors["b_dec"]) @ tensors["W_enc"]
        if self.architecture == "gated":
            magnitude = pre * tensors["r_mag"].exp() + tensors["b_mag"]
            return (pre + tensors["b_gate"] > 0) * magnitude.relu()
        pre = (pre + tensors["b_enc"]).relu()
        if self.architecture == "topk":
            assert self.k is not None
            values, indices = pre.topk(self.k, dim=-1, sorted=False)
            return pre.new_zeros(pre.shape).scatter(-1, indices, values)
        return pre * (pre > tensors["threshold"]) if self.architecture == "jumprelu" else pre

    def decode(self, latents: Tensor) -> Tensor:
        """Return reconstructed activations (..., width) of latents (..., latents). Latents that are 0 cost little time.

        Raises: UserError when shape, type or device do not fit.
        """
        check_activations(latents, self.latents, self.device, "what is to be decoded")
        rows = latents.float().reshape(-1, self.latents)
        return self._decode_rows(rows).reshape(*latents.shape[:-1], self.width) + self.tensors["b_dec"]

    def _decode_rows(self, latents_NL: Tensor) -> Tensor:
        """Return latents W_dec, (N, width)."""
        values = latents_NL.flatten()
        places = values.nonzero()[:, 0]
        if len(places) > SPARSE * len(values):
            return latents_NL @ self.tensors["W_dec"]
        active = Active.of_places(places, *latents_NL.shape)
        return sum_over_latents(active, values[places], self.tensors["W_dec"])

    def save(self, folder: Path | str) -> None:
        """Write cfg.json and sae_weights.safetensors, which `SAE.load_from_disk` of SAELens reads."""
        folder = Path(folder)
        # copies: safetensors refuses tensors that share memory
        tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in self.tensors.items()}
        with replacing(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary)
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
    def load(cls, folder: Path | str) -> "Sae":
        """Load an SAE of Sae.save or SAELens. Raise UserError when files are missing, damaged, or of another kind."""
        folder = Path(folder)
        config = read_json(folder / CONFIG, REMEDY)
        tensors = _read_tensors(folder / WEIGHTS)
        try:
            check_config(config, tensors)
            architecture = config["architecture"]
            tensors = _plain(architecture, checked_tensors(architecture, tensors), config)
            return cls(architecture, tensors, config.get("k") if architecture == "topk" else None)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():  # a pipe would be waited for
        raise FileError(f"{path} is missing or not a regular file", REMEDY)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise error if system_line(error) else FileError(f"{path} is damaged ({shown(str(error))})", REMEDY) from None


def _plain(architecture: str, tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Return tensors of the same SAE without two options of SAELens."""
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        # the k largest of what each latent adds: as if the decoder's rows had norm 1
        norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
        tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
        tensors["W_dec"] = tensors["W_dec"] / norms.clamp_min(torch.finfo(norms.dtype).tiny)[:, None]
    if not config.get("apply_b_dec_to_input", True):
        # x W + b = (x - b_dec) W + (b + b_dec W)
        shift = tensors["b_dec"] @ tensors["W_enc"]
        if architecture == "gated":
            tensors["b_gate"] = tensors["b_gate"] + shift
            tensors["b_mag"] = tensors["b_mag"] + shift * tensors["r_mag"].exp()
        else:
            tensors["b_enc"] = tensors["b_enc"] + shift
    return tensors


def fold(
    weights: dict[str, Tensor], mean: Tensor, scale: float, threshold: Tensor | None, architecture: str, k: int
) -> Sae:
    """Make an Sae for raw activations from weights that were trained on (x - mean) * scale.

    W_enc and W_dec are both (L, d). The latents are divided by `scale` as well, so the decoder's rows keep their norm
    of 1.
    """
    folded = {"W_enc": weights["W_enc"].T, "W_dec": weights["W_dec"], "b_dec": mean + weights["b_dec"] / scale}
    folded |= {name: weights[name] / scale for name in ("b_enc", "b_gate", "b_mag") if name in weights}
    if "r_mag" in weights:
        folded["r_mag"] = weights["r_mag"]
    if threshold is not None:
        folded["threshold"] = threshold / scale
    tensors = {name: tensor.detach().float().cpu() for name, tensor in folded.items()}
    return Sae(architecture, tensors, k if architecture == "topk" else None)
