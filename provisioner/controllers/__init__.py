"""The product's control loops: each gathers facts, lets core decide, and acts through the ports."""
