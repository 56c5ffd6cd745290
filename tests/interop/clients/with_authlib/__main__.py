"""Authlib as a client of ours: `python -m clients.with_authlib WORLD`. Each scenario registers a client of its own at instance two."""

from clients.with_authlib import certificates, code_flow, credentials, tokens
from lib.scenario import play
from lib.world import World

if __name__ == "__main__":
    play("authlib", [*code_flow.SCENARIOS, *tokens.SCENARIOS, *credentials.SCENARIOS, *certificates.SCENARIOS], World.told())
