"""The embedded engine: our own small implementation of the detectron2 names that we use.

Import paths, names and behavior follow detectron2 0.6, so code written against this package runs
unchanged on the real one. Nothing here is compiled; fvcore, iopath and yacs do what they already
do.
"""

__version__ = "0.6"
