"""The Open Inference Protocol over gRPC: the same exchanges as over HTTP, with other bytes at their edge.

`server` answers `inference.GRPCInferenceService`; `infer` is the translator of ModelInfer; `messages` are the
protocol's messages, which `compile` makes of `open_inference.proto`.
"""
