"""The gated feed-forward layer (SwiGLU, arXiv 2002.05202)."""

from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x)), `width` wide inside."""

    def __init__(self, size: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, width, bias=bias)
        self.up_proj = nn.Linear(size, width, bias=bias)
        self.down_proj = nn.Linear(width, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output
