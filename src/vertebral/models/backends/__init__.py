"""Other programs that run the networks: OpenVINO and ONNX Runtime."""
