"""The site of the documentation; its root is that of the repository.

So the README files are pages too, and their links work here as on GitHub.
"""

from speechbrain_hyperbolic import __version__

project = "speechbrain-hyperbolic"
copyright = "the authors, Apache-2.0"
release = __version__

extensions = [
    "myst_nb",  # Markdown and the notebook
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # SpeechBrain's form of docstrings
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*.ipynb",
    "recipes/*/README.md",
    "app/README.md",
    "benchmarks/README.md",
]
exclude_patterns = [".*", "results"]
html_theme = "furo"
html_title = project

nb_execution_mode = "off"  # a test runs it; the outputs are in the file
nb_output_stderr = "remove"
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings tell them
# Pygments does not know that a notebook's command can have several lines.
suppress_warnings = ["misc.highlighting_failure"]
