"""Depth in metres that follows known depths: these guide the denoising itself, without any training.

An affine fit moves and stretches the finished map as a whole. Here the latent, the scale and the shift take a step down
the error at the known depths with every denoising step, through decoder and U-Net, so that the shape of the map follows
them too. Source: Viola et al. 2025, "Marigold-DC: Zero-Shot Monocular Depth Completion with Guided Diffusion", section
3.2, with its number of steps, its loss and its learning rates.
"""

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LATENT_LR, SCALE_LR = 0.05, 0.005  # of Adam


def guided(
    start: Tensor,
    at: Tensor,
    metres: Tensor,
    scheduler: Any,
    predict_velocity: Callable[[Tensor, Tensor], Tensor],
    read_depth: Callable[[Tensor], Tensor],
) -> Generator[None, None, Tensor]:
    """Denoise one member, guided by known depths, pausing after each step -> its map in metres [1, 1, H, W].

    Args:
        start: the noise [1, 4, h, w] that the member starts from, float32.
        at: [N, 2], where depths are known: x and y from -1 to 1 across the map.
        metres: [N] float32, these depths.
        scheduler: DDIM, its timesteps set.
        predict_velocity: (latent [1, 4, h, w], timestep []) -> v [1, 4, h, w] float32.
        read_depth: clean latent [1, 4, h, w] -> relative depth [1, 1, H, W] float32, also beyond 0 and 1.
    """
    near, far = metres.min(), metres.max()
    latent = start.clone().requires_grad_()
    roots = torch.ones(2, device=start.device, requires_grad=True)  # of scale and shift, so that neither is negative
    optimiser: Any = torch.optim.Adam([{"params": latent, "lr": LATENT_LR}, {"params": roots, "lr": SCALE_LR}])

    def depth(clean: Tensor) -> Tensor:
        return roots[0] ** 2 * (far - near) * read_depth(clean) + roots[1] ** 2 * near

    clean = start
    for t, timestep in zip(scheduler.timesteps.to(start.device), scheduler.timesteps.tolist(), strict=True):
        with torch.enable_grad():
            velocity = predict_velocity(latent, t)
            _, clean = scheduler.step(velocity, timestep, latent, return_dict=False)
            found = F.grid_sample(depth(clean), at[None, None], padding_mode="border", align_corners=False).flatten()
            error = F.l1_loss(found, metres) + F.mse_loss(found, metres)
            down, roots.grad = torch.autograd.grad(error, (latent, roots))
        with torch.no_grad():
            alpha = scheduler.alphas_cumprod[timestep]
            noise = (1 - alpha).sqrt() * latent + alpha.sqrt() * velocity  # that the latent holds, as v says
            latent.grad = down * (noise.square().sum() / down.square().sum().clamp(min=1e-24)).sqrt()  # of its size
            optimiser.step()
            previous, clean = scheduler.step(velocity, timestep, latent, return_dict=False)
            latent.copy_(previous)
        yield
    with torch.no_grad():
        return depth(clean)
