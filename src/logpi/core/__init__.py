"""What everything else is made of: errors, options and their checks, random numbers, arrays and
their precision, trajectories, signals, files of the user, the machine.

Nothing here knows of policies, environments or runs. Imports no other folder of logpi.
"""
