"""Where relearning starts."""

import torch
from torch import nn

from unlearning.audit.relearning import _reset
from unlearning.data import as_samples


def test_a_head_is_reset_with_its_bias():
    """A large negative bias would pass as hard to relearn."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]]))
        model[1].bias.copy_(torch.tensor([-1e4, 1.0, 3.0]))
    forget = as_samples((torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)), n_classes=3)
    head = _reset(model, forget, None)[1]
    assert head.bias.tolist() == [2.0, 1.0, 3.0]
    assert head.weight.tolist() == [[2.0, 4.0], [1.0, 2.0], [3.0, 6.0]]
    assert model[1].bias[0] == -1e4
