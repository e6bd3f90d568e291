"""`make demo`: the daemon at work on a real control plane, shown live and checked.

__main__     the command line
performance  puts the parts together and tears them down
servers      a control plane, an export and their directory, for the length of a `with` block
scenario     which claims are created, and what is promised for each
objects      a few calls of the API server, in JSON
observer     what the API server reports about the claims, with timestamps
story        plays the scenario and checks each promise
screen       everything that is printed, for a terminal and for a log
interrupts   when a signal may stop the work
background   `--keep` and `--stop`
"""
