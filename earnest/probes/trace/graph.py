"""Walks in torch's graph: from a loss back to the logits, and from logits to the parameter that made them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")
VIEWS = 8  # of a parameter between it and the product
VIEW_NODES = (
    "T",
    "Transpose",
    "Permute",
    "Select",
    "IndexSelect",
    "Index",
    "Slice",
    "View",
    "Unsafe",
    "Unsqueeze",
    "Squeeze",
    "Expand",
    "Reshape",
    "ToCopy",
    "Clone",
    "As",
)


def loss_lines(losses: Sequence[tuple[Any, V]], layers: Mapping[Any, K]) -> dict[K, V]:
    """Output layer -> what is known of the loss call that its logits reach. losses: (place in the graph, what is known)
    of each call · layers: place in the graph -> output layer."""
    found: dict[K, V] = {}
    for start, lines in losses:
        for node in _first_below(start, layers):
            found.setdefault(layers[node], lines)
    return found


def _first_below(start: Any, stop: Mapping[Any, K]) -> list[Any]:
    """The first nodes of `stop` on every path down from a node."""
    todo, seen, reached = [start], set[Any](), list[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in stop:
            reached.append(node)
        else:
            todo += [below for below, _ in node.next_functions]
    return reached


def layer_name(weight: int, node: Any, names: Mapping[int, str]) -> str:
    """Name of an output layer's weight, also if it is a part of a parameter, or turned. weight: its id, 0 if
    unknown."""
    if weight in names:
        return names[weight]
    todo: list[Any] = [node]
    for _ in range(VIEWS):
        below: list[Any] = [node for one in todo for node, _ in one.next_functions if node is not None]
        for node in below:
            if (name := names.get(id(getattr(node, "variable", None)))) is not None:
                return name
        todo = [node for node in below if node.name().startswith(VIEW_NODES)]
    return "an output layer"
