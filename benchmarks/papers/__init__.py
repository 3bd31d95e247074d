"""What papers on channels claim, measured here: accuracy against FLOPs and parameters, and latency beside them."""
