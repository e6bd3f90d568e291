"""The product's control loops.

Each gathers facts, lets core decide, and acts through the ports.
"""
