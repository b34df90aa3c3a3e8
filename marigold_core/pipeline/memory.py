"""How many members fit into one forward pass, and what counts as running out of memory."""

import torch

# Activations of the U-Net per member, as multiples of its first feature map. From the published table of the
# official repository: 18 members of 96 x 96 latents, 320 channels, 2 bytes each beside the weights on 24 GB.
ACTIVATION_FACTOR = 200
SHARE_OF_FREE = 0.8  # the rest is left to the decoder and to fragmentation


def members_that_fit(device: torch.device, latent: torch.Tensor, channels: int, at_most: int) -> int:
    """Members of one forward pass for an image latent [1, 4, h, w]: by free memory on a GPU, one on a CPU.

    One on a CPU because a larger batch saves no time there and would delay the first result.
    """
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    member = ACTIVATION_FACTOR * latent.shape[-2] * latent.shape[-1] * channels * latent.element_size()
    return max(1, min(at_most, int(free * SHARE_OF_FREE / member)))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell running out of memory (GPU or CPU) from every other ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def release(device: torch.device) -> None:
    """Hand cached blocks back to a GPU after a failed allocation; call it outside the ``except`` block."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
