"""Plugins that come with the service; they know the loop and HTTP, nothing else of the service."""
