"""What is timed, and the memory it takes: ``python -m benchmarks``."""

import os
import warnings

# The words of torch's profiler, and of geoopt at its import.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
warnings.filterwarnings("ignore", category=FutureWarning)
