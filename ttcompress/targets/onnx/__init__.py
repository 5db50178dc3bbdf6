"""Exports to ONNX, for ONNX Runtime. All modules but `target` need the extra `onnx`."""
