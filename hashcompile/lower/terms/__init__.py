"""Operators in the terms of other operators, for an importer that lacks them or gets them wrong."""
