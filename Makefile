# make demo    set up and open the app               make lint      style, format, types
# make test    set up and run the tests              make examples  recompute the results shown with the examples
# make bench   ours against diffusers, in one run    make space OUT=dir   write the folder for a hosted Space
# make test-portable   the tests of numbers once more, as a CPU without AVX-512 (torch: without AVX2) rounds
#
# Everything is installed into .venv; a second call installs nothing.

PYTHON ?= python3
BIN := .venv/bin
OUT ?= space
ARGS ?=

.PHONY: demo test test-portable bench lint examples space
.DELETE_ON_ERROR:

demo: .venv/.runtime
	$(BIN)/python app.py $(ARGS)

# A browser waits for the clock as a person does, so those tests have the cores to themselves. A part of the tests may be
# asked for that has none of one sort, which pytest says with status 5.
test: .venv/.test
	@status=0; \
	$(BIN)/python -m pytest -q -m browser $(ARGS) || test $$? -eq 5 || status=1; \
	$(BIN)/python -m pytest -q -m "not browser" --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS) || test $$? -eq 5 || status=1; \
	exit $$status

test-portable: .venv/.test
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m numeric --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv/.test
	$(BIN)/python -m tests.bench $(ARGS)

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

examples: .venv/.runtime
	$(BIN)/python -m marigold_core.files.examples $(ARGS)

# Hosted GPUs run torch 2.11, and the host installs gradio itself from sdk_version in README.md. It takes binary files by
# a plain git push only through LFS. PRELOAD=v1-1 lets it fetch that checkpoint while it builds, at the commit that the hub
# names newest now, or at REVISION; SPACE=USER/NAME gives the Space a thumbnail.
space: $(if $(PRELOAD)$(SPACE),.venv/.runtime)
	@mkdir -p "$(OUT)"
	@test -z "$$(ls -A "$(OUT)")" || { echo "$(OUT) is not empty: give an empty or new folder with OUT=dir." >&2; exit 1; }
	cp -R app.py marigold_core assets LICENSE "$(OUT)"
	sed -e 's#\[\([^]]*\)\](\(\.github\|training\|tests\)[^)]*)#\1#g' README.md > "$(OUT)/README.md"  # no links to the rest
	find "$(OUT)" -name __pycache__ -type d -prune -exec rm -r {} +
	sed -e '/^gradio/d' -e 's/^torch[^ ]*/torch==2.11.*/' requirements.txt > "$(OUT)/requirements.txt"
	printf '%s filter=lfs diff=lfs merge=lfs -text\n' '*.safetensors' '*.png' '*.jpg' > "$(OUT)/.gitattributes"
ifneq ($(PRELOAD)$(SPACE),)
	$(BIN)/python -m marigold_core.cli.space "$(OUT)/README.md" --space "$(SPACE)" --preload "$(PRELOAD)" --revision "$(REVISION)"
endif

.venv/.runtime: requirements.txt | .venv/.python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

.venv/.test: pyproject.toml .venv/.runtime
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed and $(PYTHON) is not: try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@
