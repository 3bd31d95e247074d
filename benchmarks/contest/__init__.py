"""One subject, many contenders: preparation, turns, ratios, the machine's limits, tables and plots."""
