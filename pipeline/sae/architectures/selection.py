"""Compute the encoder product and find its largest entries, as fast as the processor allows."""

import numpy as np
import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
GROUP = 16  # latents whose maximum is looked at first


def top_latents(pre_BL: Tensor, k: int) -> Tensor:
    """Return the k largest of each row, int64 (B, k), in no order. In half precision only positive numbers count.

    They lie in the k groups with the largest maxima, so most of a wide row need not be searched.
    """
    batch, width = pre_BL.shape
    # as integers, the bits of positive numbers are in the same order, and are compared faster
    values = pre_BL.view(torch.int16) if pre_BL.dtype in HALF and pre_BL.device.type == "cpu" else pre_BL
    if width % GROUP or width // GROUP < 2 * k:
        return _largest(values, k)
    grouped = values.view(batch, GROUP, width // GROUP)
    best = _largest(grouped.amax(dim=1), k)
    members = grouped.gather(2, best[:, None, :].expand(-1, GROUP, -1)).reshape(batch, GROUP * k)
    chosen = _largest(members, k)
    return chosen // k * (width // GROUP) + best.gather(1, chosen % k)


def _largest(values: Tensor, k: int) -> Tensor:
    """Return the places of the k largest of each row (B, n), int64 (B, k)."""
    n = values.shape[1]
    if values.dtype != torch.int16 or n > 2**16:
        return values.topk(k, dim=1, sorted=False).indices
    # value and place in one integer: numpy's partition, vectorised for these, is several times as fast as topk
    packed = values.int().mul_(2**16).add_(torch.arange(n, dtype=torch.int32))
    best = torch.from_numpy(np.partition(packed.numpy(), n - k, axis=1)[:, n - k :])
    return best.bitwise_and_(2**16 - 1).long()


def encoder_product(x_BD: Tensor, w_LD: Tensor, b_enc: Tensor, norms: Tensor) -> Tensor:
    """Return (x w^T + b) * norms, (B, L): in bfloat16 where the processor has matrix units for it, else in x's type."""
    if x_BD.dtype == torch.float32 and has_fast_bfloat16(x_BD.device):
        weights = w_LD.bfloat16().mul_(norms.bfloat16()[:, None])
        return torch.nn.functional.linear(x_BD.bfloat16(), weights, (b_enc * norms).bfloat16())
    return torch.nn.functional.linear(x_BD, w_LD, b_enc).mul_(norms)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products are much faster than float32 ones: AMX on CPUs, tensor cores on GPUs."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))
