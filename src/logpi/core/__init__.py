"""What everything else is made of: errors, random numbers, arrays and their precision,
trajectories.

Nothing here knows of policies, environments or runs. Imports no other folder of logpi.
"""
