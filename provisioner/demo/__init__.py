"""`nfs-provisioner demo`: the daemon at work on a real control plane, shown as it happens and checked at each step.

interrupts   when a signal may end what is under way
servers      a control plane, an export and where they live, until the end of a `with`
objects      a few calls of the API server, in JSON
scenario     who claims what, and what was promised to them
observer     what the API server says of it all, with the moments
story        the scenario played, each promise looked at
screen       all that is printed, for a terminal and for a log
performance  puts the parts together
background   `--keep` and `--stop`
"""
