"""The training engine: whole steps, budgets, rewinding, checkpoints."""

__all__: list[str] = []
