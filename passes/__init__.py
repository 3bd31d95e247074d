"""The compression methods, one room each; a room knows nothing of the other rooms."""
