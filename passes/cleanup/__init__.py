"""Rewrites that change no result: they only leave less to do."""
