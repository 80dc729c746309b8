# Two commands set up a fresh machine: `make demo` and `make test`. Both work in .venv in this checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO := demo

.PHONY: install demo test lint docs viewer clean

install: $(VENV)/installed

demo: $(VENV)/installed
	$(BIN)/vertebral sample --out $(DEMO)
	$(BIN)/vertebral run $(DEMO)/LIDC-IDRI-0001_ct.nii.gz --out $(DEMO)/result --overwrite
	$(BIN)/vertebral evaluate --pred $(DEMO)/result/LIDC-IDRI-0001_seg-vert_msk.nii.gz --ref $(DEMO)/LIDC-IDRI-0001_seg-vert_msk.nii.gz --min-right 13 --min-dice 0.87

# Training forks loader processes: in processes of its own, which no other test has filled with threads and libraries.
test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2 --ignore tests/training
	$(BIN)/python -m pytest -n 2 tests/training

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/messages.py --check

# The documentation as a site, in site/; links, paths and references that lead nowhere are errors.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The scripts of report.html and of `vertebral app`, which are committed: only who changes them needs npm.
viewer:
	cd viewer && npm ci --ignore-scripts && npm run build

# torch comes first, alone: what depends on it must not choose another build.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[openvino]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[train,onnx,app,pacs,openvino,pandas,dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) site build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
