# The two commands of the README. Each makes a virtual environment in .venv,
# installs what it needs, and runs.
PYTHON ?= python3
VENV := .venv

.PHONY: demo test clean

demo: $(VENV)/demo
	$(VENV)/bin/python recipes/OwnCorpus/run.py --output_folder=results/demo

test: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	# A process a core, of one thread: files of tests keep what they share.
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

# A file with the name of the extra stands for its installation.
$(VENV)/%: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) results
