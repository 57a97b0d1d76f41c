import numpy as np
import pytest
import torch

from conceptlab.errors import InputError
from conceptlab.seeds import draw_seed, numpy_generator, torch_generator


def test_equal_ints_give_equal_streams():
    assert np.array_equal(numpy_generator(3).random(4), numpy_generator(3).random(4))
    a, b = (torch.rand(4, generator=torch_generator(3)) for _ in range(2))
    assert torch.equal(a, b)


def test_generators_advance_and_none_is_fresh():
    for source in (np.random.RandomState(0), np.random.default_rng(0)):
        assert draw_seed(source) != draw_seed(source)
    assert draw_seed(None) != draw_seed(None)


@pytest.mark.parametrize("bad", [-1, "0", 1.5, True])
def test_bad_seeds_are_refused(bad):
    with pytest.raises(InputError, match="random_state must be"):
        draw_seed(bad)


@pytest.mark.usefixtures("global_state_untouched")
def test_global_state_is_untouched():
    numpy_generator(None).random(3)
    torch.rand(3, generator=torch_generator(None))
