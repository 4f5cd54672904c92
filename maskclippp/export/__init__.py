"""A model as files that other programs run: ONNX or torch.export, and the words as matrices."""

from maskclippp.export.files import FORMATS, GRAPHS, check_packages, export_model

__all__ = ["FORMATS", "GRAPHS", "check_packages", "export_model"]
