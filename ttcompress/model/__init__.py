"""What a model is made of: weights, recurrent layers and the report, as values without torch."""
