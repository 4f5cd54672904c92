"""The package on a pretended device: nothing on the wrong device, and few waits of the host."""

import maskclippp  # noqa: F401  makes detectron2 importable
