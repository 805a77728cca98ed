"""Runs a plan on processes. `controller` is the kernel's side, `server` forks the ranks, `rank` is one of them."""
