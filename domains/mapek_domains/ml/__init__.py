"""Machine learning: models that are asked and models that are trained."""
