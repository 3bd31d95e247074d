"""Who else runs such models on a CPU: one way to prepare a model a file, and the engines that run in the workers."""
