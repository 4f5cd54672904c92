"""The result for people, and its files."""

from maskclippp.segmentation.result import TASKS, Segment, Segmentation, Task

__all__ = ["TASKS", "Segment", "Segmentation", "Task"]
