"""speechbox: a speech and segmentation server that speaks AssemblyAI's API on local models."""

import os

# onnxruntime, which finds speech in a recording, would report its use to its maker. Here nothing leaves the house.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
