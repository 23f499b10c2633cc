"""The Babel mesh: `babeld` as the engine, steered over its control socket and probed on each link."""
