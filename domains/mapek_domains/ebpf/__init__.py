"""eBPF: programs in the kernel, their probes and what they report."""
