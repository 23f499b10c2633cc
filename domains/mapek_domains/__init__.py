"""The domains of the runtime: what a loop can watch and heal.

One folder a domain. A domain imports `mapek_runtime` and itself, never another domain.
"""
