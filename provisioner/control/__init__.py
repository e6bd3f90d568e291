"""The loops: what the rules of core decide, carried out through the ports."""
