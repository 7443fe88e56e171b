"""From the token vectors of a batch to what each sequence's request wants to see of them.

sequences, each with its view --Backend.forward, once, with every layer that any view has--> token vectors
    --for each view: the rows of its sequences, layers combined, tokens pooled--> Encoded, in numpy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flowdex_executors.encoder.backend import Backend, TokenVectors
from flowdex_executors.encoder.output import Vectors, check_finite
from flowdex_executors.encoder.pooling import pool
from flowdex_executors.encoder.tokenising import TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Encoded", "Job", "View", "compute_in_order", "compute_jobs"]


_OF_SPECIAL = ("cls", "sep")  # modes whose vector is that of a special token


class View(NamedTuple):
    """What is made of the token vectors of a sequence. Sequences of equal views are computed together.

    Attributes:
        layers: Layers, as numbers from 0; none where no vectors are wanted.
        average: Whether several layers are averaged, and not concatenated.
        pooling: Pooling modes; empty for no pooling.
        tokens: Whether the token vectors are wanted.
        attention: Whether the attention is wanted.
        mask_special: Whether special tokens are left out.
    """

    layers: tuple[int, ...]
    average: bool
    pooling: tuple[str, ...]
    tokens: bool
    attention: bool
    mask_special: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A sequence in the batcher, and what is wanted of it."""

    sequence: TokenSequence
    view: View

    def __len__(self) -> int:
        return len(self.sequence)


class Encoded(NamedTuple):
    """What was computed of a sequence of n tokens: float32, of shapes (D,), (n, D) and (layers, heads, n, n)."""

    vector: Vectors | None
    tokens: Vectors | None = None
    attention: Vectors | None = None


def compute_jobs(backend: Backend, jobs: Sequence[Job], attending: Backend | None = None) -> list[Encoded]:
    """Compute a batch: one forward pass, and another one for the sequences whose attention is wanted.

    Args:
        backend: Computes it.
        jobs: What of which sequences.
        attending: Computes those whose attention is wanted, where the backend does not.

    Raises:
        FloatingPointError: The model gives a vector that is not finite.
    """
    import torch

    results: list[Encoded | None] = [None] * len(jobs)
    # Sorted by length: neighbours of equal length share an attention call, and padding is least.
    order = sorted(range(len(jobs)), key=lambda index: (jobs[index].view.attention, len(jobs[index])))
    with torch.inference_mode():
        for attention, part in groupby(order, key=lambda index: jobs[index].view.attention):
            indices = list(part)
            chosen = attending if attention and attending is not None else backend
            encoded = compute_in_order(chosen, [jobs[index] for index in indices], attention)
            for index, each in zip(indices, encoded, strict=True):
                results[index] = each
    return results  # type: ignore[return-value]  # all are filled


def compute_in_order(backend: Backend, jobs: Sequence[Job], attention: bool = False) -> list[Encoded]:
    """Compute a batch by one forward pass that sees the sequences in the order given. Needs `torch.inference_mode`."""
    layers = sorted({layer for job in jobs for layer in job.view.layers})
    computed = backend.forward([job.sequence for job in jobs], layers, attention=attention)
    by_layer = dict(zip(layers, computed.layers, strict=True))
    if all(job.view == jobs[0].view for job in jobs):
        return _look(jobs, by_layer, computed)
    results: list[Encoded | None] = [None] * len(jobs)
    views: dict[View, list[int]] = {}
    for index, job in enumerate(jobs):
        views.setdefault(job.view, []).append(index)
    for view, indices in views.items():
        rows, part = _select(computed, indices)
        chosen = {layer: by_layer[layer].index_select(0, rows) for layer in set(view.layers)}
        for index, each in zip(indices, _look([jobs[i] for i in indices], chosen, part), strict=True):
            results[index] = each
    return results  # type: ignore[return-value]


def _select(computed: TokenVectors, indices: list[int]) -> tuple[Tensor, TokenVectors]:
    """The rows of some sequences; and their lengths and attentions."""
    import torch

    lengths = computed.lengths
    chosen = torch.tensor(indices, device=lengths.device)
    sizes = lengths[chosen]
    shifts = (torch.cumsum(lengths, 0) - lengths)[chosen] - (torch.cumsum(sizes, 0) - sizes)
    rows = torch.repeat_interleave(shifts, sizes)
    rows = rows + torch.arange(len(rows), device=lengths.device)
    attentions = None if computed.attentions is None else tuple(computed.attentions[index] for index in indices)
    return rows, TokenVectors((), sizes, attentions)


def _look(jobs: Sequence[Job], by_layer: Mapping[int, Tensor], computed: TokenVectors) -> list[Encoded]:
    """What the one view of these jobs shows."""
    import torch

    view = jobs[0].view
    vectors: Sequence[Vectors | None] = [None] * len(jobs)
    tokens: Sequence[Vectors | None] = [None] * len(jobs)
    attentions: Sequence[Vectors | None] = [None] * len(jobs)
    if view.layers:
        tensors = [by_layer[layer] for layer in view.layers]
        if len(tensors) == 1:
            values = tensors[0].float()
        elif view.average:
            values = torch.stack(tensors).float().mean(0)
        else:
            values = torch.cat(tensors, dim=1).float()
        if view.pooling:
            vectors = list(_to_numpy(_pooled(jobs, values, computed.lengths)))
        if view.tokens:
            if view.mask_special and not view.pooling:
                values = values * _ordinary(jobs, values).unsqueeze(1)
            tokens = np.split(_to_numpy(values), np.cumsum([len(job) for job in jobs])[:-1])
    if computed.attentions is not None:
        attentions = [_to_numpy(each.float()) for each in computed.attentions]
    return [Encoded(*each) for each in zip(vectors, tokens, attentions, strict=True)]


def _pooled(jobs: Sequence[Job], values: Tensor, lengths: Tensor) -> Tensor:
    import torch

    modes = jobs[0].view.pooling
    separators = weights = None
    if "sep" in modes:
        separators = torch.tensor([max(job.sequence.special) for job in jobs], device=values.device)
    if "idf" in modes:
        weights = torch.tensor([w for job in jobs for w in job.sequence.weights or ()], device=values.device)
    if not jobs[0].view.mask_special:
        return pool(values, lengths, modes, separators=separators, weights=weights)
    kept = _ordinary(jobs, values)
    rows = values[kept]
    counts = torch.segment_reduce(kept.to(torch.float32), "sum", lengths=lengths, axis=0).long()
    parts = []
    for mode in modes:
        if mode in _OF_SPECIAL:
            parts.append(pool(values, lengths, (mode,), separators=separators))
        else:
            parts.append(pool(rows, counts, (mode,), weights=None if weights is None else weights[kept]))
    return torch.cat(parts, dim=1)


def _ordinary(jobs: Sequence[Job], values: Tensor) -> Tensor:
    """Which rows are of no special token; all those of a sequence that has nothing else. Of shape (rows,), boolean."""
    import torch

    kept: list[bool] = []
    for job in jobs:
        special = frozenset(job.sequence.special)
        kept += [len(special) == len(job) or position not in special for position in range(len(job))]
    return torch.tensor(kept, device=values.device)


def _to_numpy(tensor: Tensor) -> Vectors:
    array: Vectors = tensor.cpu().numpy()
    check_finite(array)
    return array
