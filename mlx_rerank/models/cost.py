"""What a token costs: operations and bytes, for budgets and benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlx_rerank.models.shape import Shape

_FUSED_HEADS = (64, 72, 80, 96, 128)  # sizes for which the GPU's attention never holds its scores in memory


@dataclass(frozen=True)
class Cost:
    """The cost of an encoder whose layers have one attention and one feed-forward of two matrices.

    Args:
        shape: of the model.
        gated: whether the first matrix of the feed-forward also makes a gate, which its activation is multiplied with.
        windows: most keys that a token attends to, by layer; all of its row's in other layers.
    """

    shape: Shape
    gated: bool = False
    windows: Mapping[int, int] = field(default_factory=dict, hash=False)

    @property
    def products(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the matrix products of a layer: to query, key and value; back; up; down."""
        D, F = self.shape.hidden_size, self.shape.intermediate_size
        return [(D, 3 * D), (D, D), (D, 2 * F if self.gated else F), (F, D)]

    def keys(self, layer: int, length: int) -> int:
        """Return how many keys a token of a pair of this length attends to in a layer."""
        return min(length, self.windows.get(layer, length))

    def operations(self, length: int) -> int:
        """Return all layers' operations on one token of a pair of this length: an addition for each multiplication."""
        products = sum(inputs * outputs for inputs, outputs in self.products)
        layers = self.shape.num_hidden_layers
        keys = sum(self.keys(layer, length) for layer in range(layers))
        return 2 * (layers * products + 2 * self.shape.hidden_size * keys)  # with every key, and with every value

    def bytes(self, length: int, itemsize: int) -> int:
        """Return the most that a layer holds at once for a token: its feed-forward, or its attention's scores.

        Args:
            length: tokens of the pair.
            itemsize: bytes of a number.
        """
        D, H = self.shape.hidden_size, self.shape.num_attention_heads
        # Before, in and after the activation, and a gate; input, residual.
        feed_forward = (4 if self.gated else 3) * self.shape.intermediate_size + 2 * D
        scores = 0 if D // H in _FUSED_HEADS else 2 * H * length + 5 * D  # before and after the softmax
        return itemsize * max(feed_forward, scores)
