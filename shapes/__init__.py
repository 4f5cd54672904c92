"""The built-in world: quickstart, study, and how its CLIP and its mask generators were trained."""

import maskclippp  # noqa: F401  makes detectron2 importable
