"""Real trained models, their data, and what "still as good" means for each."""
