"""Ports of the loopback address that nothing uses."""

import random
import socket

# Below the ports that the kernel gives to outgoing connections: none of those takes one between our look and its server's start.
FIRST, LAST = 20_000, 32_000


def free(count: int) -> list[int]:
    """So many different ports; the kernel is asked for each, and all are held until the last is found."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                attempt.bind(("127.0.0.1", random.randrange(FIRST, LAST)))
            except OSError:
                attempt.close()
            else:
                held.append(attempt)
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
