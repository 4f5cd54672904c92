"""The embedded engine: our own small implementation of the detectron2 names that we use.

Import paths, names and behavior follow detectron2 0.6, so that code written against this package
runs unchanged on the real one. Nothing is compiled, and what fvcore, iopath and yacs provide is
not written again.
"""

__version__ = "0.6"
