"""Predictors behind one protocol: plain, factorised, compiled, ONNX Runtime."""
