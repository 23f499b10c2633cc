"""Federated learning: clients that train at home and share only models."""
