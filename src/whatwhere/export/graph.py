"""A calculation as a list of operators of the ONNX standard with their constants, all of it plain values."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

IMAGES, RESPONSES = "images", "responses"


@dataclass(frozen=True)
class Node:
    """One operator: the values that it reads, by name, the one that it gives, and its attributes."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


@dataclass
class Graph:
    """From `images` to `responses`: each node added reads what earlier ones gave; its value goes by the node's name.

    >>> graph = Graph()
    >>> doubled = graph.add("doubled", "Mul", IMAGES, graph.constant("two", np.float32([2.0])))
    >>> graph.end(doubled)
    >>> [(node.operator, node.inputs, node.output) for node in graph.nodes]
    [('Mul', ('images', 'two'), 'responses')]
    """

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Of all constants."""
        return sum(array.nbytes for array in self.constants.values())

    def constant(self, name: str, values: Any) -> str:
        """Numbers in single precision, or whole ones; returns their name."""
        array = np.asarray(values)
        kind = np.int64 if array.dtype.kind in "iu" else np.float32
        self.constants[name] = np.ascontiguousarray(array, kind)
        return name

    def add(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:
        """Returns the name of what the operator gives, which is `name`."""
        self.nodes.append(Node(operator, inputs, name, attributes))
        return name

    def end(self, value: str) -> None:
        """The last node's value, which is the one named, becomes the responses."""
        last = self.nodes[-1]
        assert last.output == value
        self.nodes[-1] = Node(last.operator, last.inputs, RESPONSES, last.attributes)
