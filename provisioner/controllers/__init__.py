"""The product's loops: each gathers facts, lets core decide, and acts through the ports."""
