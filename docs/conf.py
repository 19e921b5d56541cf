"""How the pages are built: `make docs`. What they say of options, models and scores is read from the code."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_extensions"))


project = "whatwhere"
author = "whatwhere developers"
copyright = "whatwhere developers, MIT licence"
version = release = version_of("whatwhere")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_gallery.gen_gallery",
    "markdown_docstrings",
    "mathml",
    "tables_from_code",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5", "**/sg_execution_times.rst"]
nitpicky = False

# Markdown, also in docstrings
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

# API
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # scikit-learn's, which it puts into every class
    "exclude-members": "set_fit_request, set_predict_request, set_score_request, set_partial_fit_request",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
add_module_names = False
toc_object_entries = False
maximum_signature_line_length = 88

# Gallery: every example runs, but for the one that takes minutes of set time.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"^(?!.*optimisers\.py$)",
    "within_subsection_order": "gallery_figures.ReadingOrder",
    "image_scrapers": ("gallery_figures.scrape_figures",),
    "capture_repr": ("_repr_html_",),
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "reset_modules": ("gallery_figures.reset_names",),
    "reset_modules_order": "both",
}

html_theme = "furo"
html_title = f"whatwhere {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
