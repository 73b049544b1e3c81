"""One module per stage of dvc.yaml. It reads its parameters and files, calls the library, and writes files.

Running a stage imports this package first, which makes libraries quiet: a stage speaks through its progress bars, its
metrics and its errors.
"""

import logging
import os
import sys
import warnings

if sys.argv[:1] == ["-m"]:  # which stands there while 'python -m' imports the packages of what it is to run
    from pipeline.core.cli import exit_on_user_error
    from pipeline.core.ending import end_at_once_on_signals, end_with_starter
    from pipeline.core.environment import check_environment

    end_at_once_on_signals()  # imports take seconds; then pipeline.core.cli takes over
    end_with_starter()
    exit_on_user_error(check_environment)

# threads that wait asleep: spinning ones make each other ten times slower as soon as a core is shared
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# large tensors in huge pages: a training step that allocates gradients anew then waits less for the kernel
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# GPTQModel's thread pool fails with more workers than cores
os.environ.setdefault(
    "GPTQMODEL_CPU_WORKERS",
    str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("USE_HUB_KERNELS", "0")  # no compiled code from the hub in place of a model's layers
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
for name in ("torchao", "torch.utils._pytree", "tokenicer"):
    logging.getLogger(name).setLevel(logging.ERROR)
