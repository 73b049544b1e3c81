"""Check that an SAE is usable when it is made or loaded, so that nothing is silently wrong later."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import UserError, shown

TENSORS = {
    "standard": {"W_enc", "b_enc", "W_dec", "b_dec"},
    "topk": {"W_enc", "b_enc", "W_dec", "b_dec"},
    "jumprelu": {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"},
    "gated": {"W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"},
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CHUNK = 4096  # tokens looked at at once


def is_whole(value: Any, least: int, most: float) -> bool:
    """Return whether it is an int, not a bool, within the bounds."""
    return type(value) is int and least <= value <= most


def check_architecture(architecture: Any) -> None:
    if not isinstance(architecture, str) or architecture not in TENSORS:
        raise UserError(f"architecture {shown(architecture)} is not known: use one of {', '.join(TENSORS)}")


def checked_tensors(architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in float32. Raise UserError unless they fit the architecture and each other, and are finite.

    A threshold may be infinite: that latent never fires.
    """
    if set(tensors) != TENSORS[architecture]:
        odd = ", ".join(shown(name) for name in sorted(set(tensors) ^ TENSORS[architecture], key=str)[:4])
        raise UserError(f"tensors missing or not known for {architecture}: {odd}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
            kind = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UserError(f"{name} is of {kind}, where a tensor of float16, bfloat16, float32 or float64 is expected")
    encoder = tuple(tensors["W_enc"].shape)
    if len(encoder) != 2 or not all(encoder):
        raise UserError(f"W_enc has shape {encoder}, where (width, latents) is expected, both at least 1")
    width, latents = encoder
    shapes = {"W_enc": (width, latents), "W_dec": (latents, width), "b_dec": (width,)}
    floats = {}
    for name, tensor in tensors.items():
        expected = shapes.get(name, (latents,))
        if tuple(tensor.shape) != expected:
            raise UserError(f"{name} has shape {tuple(tensor.shape)}, where {expected} goes with W_enc {encoder}")
        if tensor.device != tensors["W_enc"].device:
            raise UserError(f"{name} is on {tensor.device} and W_enc on {tensors['W_enc'].device}: move all to one")
        floats[name] = tensor.float()
        wrong = floats[name].isnan() if name == "threshold" else ~floats[name].isfinite()
        if bool(wrong.any()):
            kind = "NaN" if tensor.isnan().any() else "numbers that are infinite in float32"
            raise UserError(f"{name} holds {kind}: train the SAE again, or get another copy")
    return floats


def check_k(architecture: str, k: Any, latents: int) -> None:
    """Raise UserError unless k fits the architecture: only topk has a k."""
    if architecture == "topk" and not is_whole(k, 1, latents):
        raise UserError(
            f"k of a topk SAE is {shown(k)}, where a whole number from 1 to its {latents} latents is expected"
        )
    if architecture != "topk" and k is not None:
        raise UserError(f"k is {shown(k)}, but an SAE of architecture {architecture} has none: leave it out")


def check_config(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError unless this is SAELens's cfg.json, fits the weights, and asks for nothing that Sae cannot do."""
    if not isinstance(config, dict):
        raise UserError(f"cfg.json holds a {type(config).__name__}, where an object is expected")
    check_architecture(config.get("architecture"))
    encoder = tensors.get("W_enc")
    if encoder is not None and encoder.dim() == 2:
        for name, size in zip(("d_in", "d_sae"), encoder.shape, strict=True):
            if name in config and not is_whole(config[name], size, size):
                raise UserError(
                    f"{name} of cfg.json is {shown(config[name])}, but W_enc has shape {tuple(encoder.shape)}"
                )
    for name in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        if not isinstance(config.get(name, False), bool):
            raise UserError(f"{name} of cfg.json is {shown(config[name])}, where true or false is expected")
    if config.get("normalize_activations") not in (None, False, "none"):
        raise UserError("normalize_activations of cfg.json must be none: fold it into the weights first")
    activation = config.get("activation_fn", config.get("activation_fn_str"))  # before SAELens 6
    if activation not in (None, "relu", config["architecture"]):
        raise UserError(
            f"activation_fn of cfg.json is {shown(activation)}: load it in SAELens 6 and save it again with save_model"
        )


def check_activations(x: Any, width: int | None, device: torch.device | None, what: str) -> None:
    """Raise UserError unless it is a float tensor (..., width) on the device. Its values are not looked at.

    None stands for any width, or any device.
    """
    if not isinstance(x, Tensor):
        raise UserError(f"{what} is of {type(x).__name__}: give a torch.Tensor, such as torch.from_numpy makes")
    if x.layout != torch.strided:
        raise UserError(f"{what} is a sparse tensor: give a dense one, such as its to_dense()")
    if x.dtype not in FLOATS:
        raise UserError(f"{what} is of {x.dtype}: give float16, bfloat16, float32 or float64")
    if width is not None and (not x.dim() or x.shape[-1] != width):
        raise UserError(f"{what} has shape {tuple(x.shape)}: (..., {width}) is expected")
    if device is not None and x.device != device:
        raise UserError(f"{what} is on {x.device} and the SAE on {device}: move one, such as with sae.to(device)")


def check_tokens(acts: Any, what: str, width: int | None = None) -> None:
    """Raise UserError unless these are finite activations (tokens, width) of a float type, on any device."""
    if isinstance(acts, Tensor) and (acts.dim() != 2 or not acts.shape[1]):
        raise UserError(f"{what} has shape {tuple(acts.shape)}: (tokens, {width or 'width'}) is expected")
    check_activations(acts, width, None, what)
    for number, rows in enumerate(acts.split(CHUNK)):
        finite = rows.isfinite().all(dim=1)
        if not bool(finite.all()):
            row = number * CHUNK + int((~finite).nonzero()[0])
            raise UserError(f"{what} holds NaN or infinity in row {row}: leave such tokens out")


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def checked_device(device: str | torch.device) -> torch.device:
    """Return the device. Raise UserError when this machine does not have it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise UserError(f"device {shown(str(device))} cannot be used here: {str(error).splitlines()[0]:.200}") from None
