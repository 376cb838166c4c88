"""Linear layers and attention through oneDNN on processors where it is quicker.

PyTorch multiplies float32 matrices on the CPU with MKL, which takes a slower path on AMD; its convolutions use oneDNN,
which does not. On an AMD EPYC with AVX-512 the products of a ViT-S's linear layers, forward and backward, ran at 200 to
245 instead of 90 to 110 GFLOP/s, and attention over 2,304 tokens without gradients took 0.57 of the time
of torch's kernel.
"""

import functools
import itertools
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry, register_flop_formula

from mst_transfer.devices.race import race

_MIN_MULTIPLICATIONS = 2**22  # below, the call costs more than it saves
_MIN_TOKENS = 512  # shorter sequences gain nothing
_QUERIES = 512  # at a time
_here = threading.local()


def quick_products(device: torch.device | str = "cpu") -> AbstractContextManager[Any]:
    """A context in which ``F.linear``, and ``F.scaled_dot_product_attention`` without gradients, are quick on a device.

    Where MKL is slow (``slow_mkl``) these are oneDNN's products (``OneDNNProducts``); elsewhere, and under
    autocast, where torch takes oneDNN by itself, nothing changes. The backward pass may lie outside, except
    that gradient checkpointing must compute again in the same context (``quick_recomputation``).
    """
    return OneDNNProducts() if _helps(device) and not getattr(_here, "active", 0) else nullcontext()


def quick_recomputation(device: torch.device) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the ``context_fn`` of ``torch.utils.checkpoint.checkpoint``: both passes take the same products."""
    # the second pass may be outside of the quick_products that the first one is in
    return quick_products(device), OneDNNProducts() if _helps(device) else nullcontext()


def recomputed(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a block whose activations the backward pass computes again, with the same products."""
    return checkpoint(block, x, use_reentrant=False, context_fn=functools.partial(quick_recomputation, x.device))


def _helps(device: torch.device | str) -> bool:
    if torch.compiler.is_compiling() or torch.device(device).type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return slow_mkl()


class OneDNNProducts(TorchFunctionMode):
    """Within this context ``F.linear`` uses oneDNN where that is quicker: equal to rounding, gradients too.

    That is for float32 on the CPU, without autocast. So does ``F.scaled_dot_product_attention`` over long sequences,
    without mask, dropout and gradients. Elsewhere the context changes nothing. Gradients of gradients are refused by
    torch.
    """

    def __enter__(self) -> Any:
        _here.active = getattr(_here, "active", 0) + 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _here.active -= 1
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.linear:
            inputs, weight, bias = _arguments(*args, **(kwargs or {}))
            if _suits(inputs, weight):
                rows = inputs.reshape(-1, inputs.shape[-1])
                needed = torch.is_grad_enabled() and any(
                    x is not None and x.requires_grad for x in (rows, weight, bias)
                )
                out = _Linear.apply(rows, weight, bias) if needed else _product(rows, weight, bias)
                return out.view(*inputs.shape[:-1], len(weight))
        if func is torch.nn.functional.scaled_dot_product_attention and len(args) == 3:
            options = dict(kwargs or {})
            scale = options.pop("scale", None)
            plain = all(value is None or (isinstance(value, (bool, float)) and not value) for value in options.values())
            if plain and _attention_suits(*args):
                return _attention(*args, scale=args[0].shape[-1] ** -0.5 if scale is None else scale)
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """rows [M, I], weight [O, I], bias [O] or None → [M, O]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if of_rows else None,
            _product(grad.t(), rows.t()) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.T + bias``. Transposed matrices are taken as they are; with gaps oneDNN would take minutes."""
    return torch.ops.mkldnn._linear_pointwise(_without_gaps(rows), _without_gaps(weight), bias, "none", [], "")


def _without_gaps(matrix: Tensor) -> Tensor:
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of ``[B, H, T, d]``, a head and some hundred queries at a time: no T x T matrix."""
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for place in itertools.product(range(query.shape[0]), range(query.shape[1])):
        keys, values = key[place].contiguous(), value[place].contiguous().t()
        for first in range(0, query.shape[2], _QUERIES):
            some = query[place][first : first + _QUERIES] * scale
            weights = torch.softmax(_product(some, keys), dim=-1)
            out[place][first : first + _QUERIES] = _product(weights, values)
    return out


def _attention_suits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    return (
        query.ndim == 4
        and query.shape[-2] >= _MIN_TOKENS
        and query.shape == key.shape == value.shape
        and not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
        and _plain(query, key, value)
    )


def _arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of ``F.linear``."""
    return input, weight, bias


def _suits(inputs: Tensor, weight: Tensor) -> bool:
    return inputs.numel() * len(weight) >= _MIN_MULTIPLICATIONS and _plain(inputs, weight)


def _plain(*tensors: Tensor) -> bool:
    """Whether tensors are of float32 on the CPU, and computed with now, without autocast."""
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not (torch.jit.is_tracing() or torch.compiler.is_compiling())
    )


@functools.cache
def slow_mkl() -> bool:
    """Whether oneDNN is there and takes less than three quarters of MKL's time: measured, once a process.

    On Intel's processors both take about as long, on AMD's with AVX-512 MKL takes twice as long.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    weight = torch.ones(1536, 384)

    def run(product: Callable, count: int) -> None:
        with torch.no_grad():
            rows = torch.ones(count, 384)
            product(product(rows, weight), weight.t())

    libraries = {"MKL": torch.nn.functional.linear, "oneDNN": _product}
    seconds = race({name: functools.partial(run, product) for name, product in libraries.items()}, 64, 256)
    return seconds["oneDNN"] < 0.75 * seconds["MKL"]


if hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._linear_pointwise not in flop_registry:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)  # FlopCounterMode knows it from its start, or not at all
    def _flops(rows: Any, weight: Any, *others: Any, **kwargs: Any) -> int:
        """Of shapes [M, I] and [O, I]."""
        return 2 * rows[0] * rows[1] * weight[0]
