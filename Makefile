# make demo: the whole pipeline on made-up ECGs, in minutes, without data or GPU.  make test: the test suite.
# Both need only Python 3.9-3.13 and make; they install what is needed into .venv first.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python; do \
	$$p -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# With an NVIDIA card, Paddle comes from its own index, which has it with CUDA and cuDNN for this machine's driver;
# PADDLE_INDEX=URL takes it from another. REQUIREMENTS=requirements-cpu.txt does without the card.
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
REQUIREMENTS ?= $(if $(filter 0,$(HAS_GPU)),requirements-cpu.txt,requirements.txt)
DEVICE := $(if $(filter requirements-cpu.txt,$(REQUIREMENTS)),cpu,auto)
PIP = $(RUN) -m pip install --disable-pip-version-check
VENV ?= .venv
RUN := $(VENV)/bin/python
TASK ?= 1
DEMO := output/demo-task$(TASK)

# Both start from the network that comes along, models/ptbxl, so they draw and learn as it did; the competition's way is
# ImageNet's ResNet50 at 640 pixels (config.yml).
SIZE ?= 160
MODEL ?= resnet18
START ?= ptbxl
SEED ?= 2021
SMALL_SETTINGS := -o device=$(DEVICE) -o render.size=$(SIZE) -o model.name=$(MODEL) -o model.pretrained=$(START) \
	-o train.batch_size=16 -o train.learning_rate=0.0003 -o train.warmup_iters=20
DEMO_SETTINGS = $(SMALL_SETTINGS) -o task=$(TASK) -o data.source=$(DEMO)/ecgs -o data.root=$(DEMO)/pictures -o output=$(DEMO) \
	-o predict.answer=$(DEMO)/answer.csv -o train.iters=90

# make real DATA=PATH: five folds on real ECGs in the competition's layout.
REAL := output/real
REAL_SETTINGS = $(SMALL_SETTINGS) -o task=$(TASK) -o data.source=$(DATA) -o data.root=$(REAL)/pictures -o output=$(REAL) \
	-o predict.answer=$(REAL)/answer.csv -o train.folds=5 -o train.epochs=4 -o train.ema=0.5 -o train.eval_interval=1000000 \
	-o seed=$(SEED)

.PHONY: demo test lint real faults bench clean

demo: $(VENV)/installed
	$(RUN) -m utils.datasets.demo $(DEMO)/ecgs --task $(TASK)
	$(RUN) process.py $(DEMO_SETTINGS)
	$(RUN) train.py $(DEMO_SETTINGS)
	$(RUN) predict.py $(DEMO_SETTINGS) --reference $(DEMO)/ecgs/valreference.csv
	@echo
	@echo 'Look at:'
	@echo '  $(DEMO)/pictures/examples.png    a few of the ECGs, as a person sees them'
	@echo '  $(DEMO)/pictures/val/            the pictures, as the network sees them'
	@echo '  $(DEMO)/curves.png               how training went'
	@echo '  $(DEMO)/validation.png           how good the best model is on the validation records'
	@echo '  $(DEMO)/answer.csv               the answer, scored above on records that it was never trained on'
	@echo 'The same with your data: python process.py, python train.py, python predict.py (README.md)'

real: $(VENV)/installed
	@test -n '$(DATA)' || { echo 'error: expected make real DATA=PATH, a folder with train/*.mat, val/*.mat and' \
		'trainreference.csv'; exit 2; }
	$(RUN) process.py $(REAL_SETTINGS)
	$(RUN) train.py $(REAL_SETTINGS)
	$(RUN) predict.py $(REAL_SETTINGS)

test: $(VENV)/installed-tests
	$(RUN) -m pytest tests -n logical --dist loadfile

lint: $(VENV)/installed-tests
	$(RUN) -m ruff check .

faults: $(VENV)/installed-tests
	$(RUN) -m tests.faults

bench: $(VENV)/installed-tests
	$(RUN) -m benchmarks

clean:
	rm -rf $(VENV)

$(VENV)/installed: $(REQUIREMENTS)
	@test -n '$(PYTHON)' || { echo 'error: no Python from 3.9 to 3.13 found (Paddle has no packages for 3.14 yet);' \
		'install one beside it, e.g. "apt install python3.13-venv" or "uv python install 3.13",' \
		'then: make $(MAKECMDGOALS) PYTHON=/path/to/python3.13'; exit 2; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(REQUIREMENTS),requirements.txt)
	@index=$(PADDLE_INDEX); test -n "$$index" || index=$$($(RUN) -m utils.running.cards) || exit 2; \
		echo "$(PIP) 'paddlepaddle-gpu>=2.6' -i $$index"; \
		$(PIP) 'paddlepaddle-gpu>=2.6' -i $$index || { echo "error: no Paddle for this Python at $$index, or no way" \
		'there: see https://www.paddlepaddle.org.cn/install/quick, name another with PADDLE_INDEX=URL, or do without' \
		'the GPU: make $(MAKECMDGOALS) REQUIREMENTS=requirements-cpu.txt /' \
		'下载不了 GPU 版 Paddle：可用 PADDLE_INDEX=网址 换一个源，或用 REQUIREMENTS=requirements-cpu.txt 在 CPU 上运行'; exit 2; }
endif
	$(PIP) -r $(REQUIREMENTS)
	touch $@

$(VENV)/installed-tests: $(VENV)/installed requirements-test.txt
	$(PIP) -r requirements-test.txt
	touch $@
