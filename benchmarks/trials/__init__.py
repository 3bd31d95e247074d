"""One trial a model: compile it, and claim what came of it."""
