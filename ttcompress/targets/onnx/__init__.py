"""Export to ONNX, for ONNX Runtime. Needs the extra `onnx`."""
