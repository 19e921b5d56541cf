"""Fitted models in files that other programs read."""

from whatwhere.export.onnx_file import Exported, check_onnx, export_onnx

__all__ = ["Exported", "check_onnx", "export_onnx"]
