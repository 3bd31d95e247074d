"""One model after the other, compiled and held to what was promised of it."""
