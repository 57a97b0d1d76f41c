"""Sphinx configuration: offline, executed, warnings are errors (``sphinx-build -W``)."""

import importlib.metadata
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

# One thread and no progress bars, so that executed pages give the same bits everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CONCEPTLAB_PROGRESS", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

project = "conceptlab"
author = "The conceptlab developers"
copyright = "2026, the conceptlab developers"
release = importlib.metadata.version("conceptlab")
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
    "plain_docstrings",
]
exclude_patterns = [
    "_build",
    "_extensions",
    "_templates",
    "gallery",
    "jupyter_execute",
    "_generated/gallery/**/*.ipynb",
    "**/.ipynb_checkpoints",
]
templates_path = ["_templates"]
root_doc = "index"

# -- executed pages
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# -- gallery
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_generated/gallery",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "image_scrapers": ("gallery_figures",),
    "reset_modules": (),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 60,
}

# -- reference
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_class_members_toctree = False

# -- pages
html_theme = "pydata_sphinx_theme"
html_title = f"conceptlab {release}"
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "which-method": [], "changelog": []}
