"""speechbox: a server with AssemblyAI's speech API and chat completions for segmentation, on local models."""

import os

# onnxruntime, which detects speech, would send telemetry to its vendor.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
