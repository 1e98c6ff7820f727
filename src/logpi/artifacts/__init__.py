"""What is made of finished runs to be looked at and taken away: models, videos, pages.

Reads run folders and reports of the check, and writes files of other kinds. Imports all folders but
commands.
"""
