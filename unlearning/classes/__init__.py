"""Methods that make a classifier forget classes, one a file; see :mod:`unlearning`."""
