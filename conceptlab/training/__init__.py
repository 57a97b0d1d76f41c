"""The training engine: whole steps, budgets, rewinding, checkpoints."""
