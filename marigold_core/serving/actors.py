"""What an actor of a Ray cluster asks for and is given, as ``cli.cluster`` and ``serving.ray`` start them."""

import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from marigold_core.settings import Frozen


class ActorOptions(Frozen):
    """What each actor, which holds a loaded checkpoint, asks of the cluster."""

    ray_cpus: float = Field(1.0, gt=0, description="cores of each actor")
    ray_gpus: Annotated[float, Field(ge=0)] | None = Field(
        None, description="GPUs of each actor, or a share of one; by default 1 where the cluster has any"
    )

    def gpus(self, resources: Mapping[str, float]) -> float:
        """Return the GPUs of an actor on a cluster with these resources."""
        return float(resources.get("GPU", 0) > 0) if self.ray_gpus is None else self.ray_gpus


def environment() -> dict[str, str]:
    """Return our variables of this process, which its actors on other machines get."""
    return {name: value for name, value in os.environ.items() if name.startswith("MARIGOLD_")}
