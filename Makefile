# The two commands of the README: demo and test. Each makes a virtual
# environment in .venv, installs what it needs, and runs.
PYTHON ?= python3
VENV := .venv
LOCKED := requirements/ci.txt
PIP = $(VENV)/bin/python -m pip install --quiet
# One process per core, one thread each; a file's tests share their fixtures.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

.PHONY: demo test docs coverage minimum pytest lock size clean

demo: $(VENV)/demo
	$(VENV)/bin/python recipes/OwnCorpus/run.py --output_folder=results/demo

test: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST)

# The site, in results/docs; a warning or a broken local link ends it
docs: $(VENV)/docs
	$(VENV)/bin/sphinx-build --quiet -W --keep-going -c docs . results/docs
	echo '<meta http-equiv="refresh" content="0; url=docs/index.html">' \
		> results/docs/index.html

coverage: $(VENV)/test
	$(PYTEST) --cov

# The lowest versions that setup.py admits, in an environment of their own
minimum:
	$(MAKE) pytest VENV=.venv-minimum LOCKED=requirements/minimum.txt

pytest: $(VENV)/test
	$(PYTEST)

# A file named after the extra marks its installation as done.
$(VENV)/demo: setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/docs: setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[docs]'
	touch $@

# The list is complete, so pip resolves no dependencies, which would look for
# releases whose hashes the list does not have.
$(VENV)/test: setup.py $(LOCKED)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes --requirement $(LOCKED)
	$(PIP) --no-deps --no-build-isolation --editable .
	$(VENV)/bin/python -m pip check
	touch $@

# Keeps locked versions that setup.py still admits: delete a line to renew it.
lock:
	$(PYTHON) -m venv $(VENV)
	$(PIP) uv
	$(VENV)/bin/uv $(LOCK) --output-file requirements/ci.txt
	$(VENV)/bin/uv $(LOCK) --resolution lowest-direct \
		--output-file requirements/minimum.txt
LOCK = pip compile --quiet --universal --python-version 3.10 \
	--no-python-downloads --no-annotate --generate-hashes --extra test setup.py

# Lines of Python, and the largest files
size:
	@for folder in speechbrain_hyperbolic tests benchmarks; do \
		printf '%-24s %6d\n' $$folder \
			$$(git ls-files -co --exclude-standard "$$folder/*.py" | xargs cat | wc -l); \
	done
	@git ls-files -co --exclude-standard '*.py' | xargs wc -l | sort -rn | sed -n 2,11p

clean:
	rm -rf $(VENV) .venv-minimum results
