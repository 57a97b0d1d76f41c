"""Which places are shown of a concept."""

import numpy as np

from conceptlab.extractors.craft.explaining import of_many_images


def test_the_best_of_each_image_comes_first():
    places = np.array([[3, 0], [3, 1], [3, 2], [5, 0], [3, 3], [7, 0], [5, 1]])
    found = of_many_images(places, 5)
    assert found.tolist() == [[3, 0], [5, 0], [7, 0], [3, 1], [5, 1]]
    assert of_many_images(places[:2], 5).tolist() == [[3, 0], [3, 1]]
    assert of_many_images(np.empty((0, 4), np.int64), 5).shape == (0, 4)
