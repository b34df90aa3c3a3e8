"""A GPU that is not there: tensors that say they are on "cuda:0" and hold their values in main memory.

Operations compute on the CPU, but are refused where CUDA would refuse them, between tensors of two devices, and those
for which a program waits until the GPU is through are counted. The layout of memory and the kernels are the CPU's, and
gradients cannot be had: torch ends the process where it was built without CUDA.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten: Any = torch.ops.aten
GPU = torch.device("cuda:0")
COPIES = {aten._to_copy.default, aten.copy_.default}  # between devices
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}  # also by indices on the CPU
WAITS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
GUARDED: dict[Any, Any] = {torch.Tensor.contiguous: aten.contiguous.default, torch.Tensor.copy_: aten.copy_.default}

READ = {torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__bool__, torch.Tensor.item}


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnGpu":
        layout: Any = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(False):  # of what is made in that mode no views could be told of
            made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=GPU)
        made.held = held
        return made

    def tolist(self) -> Any:
        """Bring the values to the CPU, which torch itself does for its own class alone."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {}, [])


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _compute(operation: Any, args: Any, kwargs: dict[str, Any], waits: list[str]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [one for one in tensors if isinstance(one, OnGpu)]
    here = [one for one in tensors if not isinstance(one, OnGpu) and one.ndim]  # a number on the CPU may take part
    if operation in INDEXED:
        here = [one for one in here if one is args[0]]
    if there and here and operation not in COPIES:
        raise RuntimeError(f"{operation} got tensors on two devices, cuda:0 and cpu")
    device = kwargs.get("device")
    to_gpu = torch.device(device).type == "cuda" if device is not None else bool(there)
    if operation is aten.copy_.default:
        to_gpu = isinstance(args[0], OnGpu)
    if operation in WAITS and there:
        waits.append(str(operation))
    if operation in COPIES and (to_gpu or there) and not (to_gpu and all(isinstance(one, OnGpu) for one in tensors)):
        if not kwargs.get("non_blocking", len(args) > 2 and args[2]):
            waits.append(f"{operation} {[list(one.shape) for one in tensors]}")
        elif not to_gpu:
            raise RuntimeError(f"{operation} brings values to the CPU that may be read before they are there")
    if device is not None and to_gpu:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = operation(*tree_map(_held, args), **tree_map(_held, kwargs))
    given = {id(one.held): one for one in there}

    def place(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return given.get(id(value)) if id(value) in given else OnGpu(value)

    return tree_map(place, found) if to_gpu else found


class _Operations(TorchDispatchMode):
    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is aten.to:
            with self:  # it consists of others, which say what is copied
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **(kwargs or {}))
        return _compute(func, args, kwargs or {}, self.waits)


class _Functions(TorchFunctionMode):
    """What torch asks CUDA for before it asks anybody else: its kernel of attention, and a guard while it indexes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not (args and isinstance(args[0], OnGpu)):
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            assert all(isinstance(one, OnGpu) and one.dtype == args[0].dtype for one in args[:3])
            return OnGpu(func(*map(_held, args), **tree_map(_held, kwargs)))
        if func in READ:
            return func(args[0].cpu())
        if func is torch.Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(GPU)
        if func in GUARDED:
            return GUARDED[func](*args, **kwargs)
        if func is torch.Tensor.__getitem__:
            return _part(*args)
        if func is torch.Tensor.__setitem__:
            tensor, index, value = args
            return aten.copy_.default(_part(tensor, index), torch.as_tensor(value))
        return func(*args, **kwargs)


def _part(tensor: Any, index: Any) -> Any:
    index = index if isinstance(index, tuple) else (index,)
    if any(isinstance(one, torch.Tensor) for one in index):
        return aten.index.Tensor(tensor, list(index))
    taken = sum(one is not None and one is not Ellipsis for one in index)
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    dim = 0
    for one in (*index[:at], *[slice(None)] * (tensor.ndim - taken), *index[at + 1 :]):
        if one is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(one, slice):
            tensor = aten.slice.Tensor(tensor, dim, one.start, one.stop, one.step or 1)
        else:
            tensor, dim = tensor.select(dim, one), dim - 1
        dim += 1
    return tensor


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch, free_bytes: int = 2**34) -> Iterator[list[str]]:
    """Let "cuda" be there in this thread; yields the list of the operations for which the program waited."""
    waits: list[str] = []
    answers = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "pretended",
        "mem_get_info": lambda *_: (free_bytes, free_bytes),
        "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "synchronize": lambda *_: waits.append("synchronize"),
        "empty_cache": lambda: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)  # weights change their class
    with _Operations(waits), _Functions():
        yield waits
