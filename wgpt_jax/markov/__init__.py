"""Sources of known entropy: what no model can beat, and a good one must reach."""
