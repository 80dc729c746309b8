"""Other programs that compute the networks: OpenVINO and ONNX Runtime."""
