"""The server of the workers imports this before it forks them: what all arms need. Only imports: a
fork after OpenMP has begun to work would hang.
"""

from contextlib import suppress

# Whatever is wrong with it, the worker will say so.
with suppress(Exception):
    import stages.lib.evaluation.context  # noqa: F401
