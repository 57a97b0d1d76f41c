"""Make a model forget a concept, and audit that it is gone."""
