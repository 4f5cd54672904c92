"""Speed and memory of parts and of whole models; run as ``python -m benchmarks.run``."""

import maskclippp  # noqa: F401  makes detectron2 importable
