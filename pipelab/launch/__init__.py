"""Runs a plan on processes. `controller` is the kernel's side, `server` forks the ranks, `rank` is one of them."""


def prepare() -> None:
    """Start the process that ranks are forked from, so that the first `start` need not wait for it.

    It returns at once, and does nothing where that process runs already.

    Raises:
        LaunchError: Processes cannot be started on this platform.
    """
    # Imported here: the server and the ranks import this package and need only their own modules of it.
    from pipelab.launch.client import current_server

    current_server()
