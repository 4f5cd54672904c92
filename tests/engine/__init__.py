import maskclippp  # noqa: F401  (makes detectron2 importable, also where these tests start processes)
