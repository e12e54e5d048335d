"""speechbox: a speech and segmentation server that speaks AssemblyAI's API on local models."""
