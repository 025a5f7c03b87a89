"""Detectors as ONNX files, and their use in place of a checkpoint."""
