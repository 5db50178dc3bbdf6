"""Export to ONNX, for ONNX Runtime. All but `target` needs the extra `onnx`."""
