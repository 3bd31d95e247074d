"""hashcompile: compile a trained PyTorch model to a small, fast, verified artifact."""
