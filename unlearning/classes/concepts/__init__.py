"""What forgetting a class through its concepts is made of."""

__all__: list[str] = []
