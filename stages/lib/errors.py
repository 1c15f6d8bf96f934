"""The one exception that a person, not a programmer, has to mend."""


class UserError(Exception):
    """A mistake in the params, the data or the files of a run.

    Its text is one line per problem: what is wrong, where, and what to do. Stages print
    it without a traceback and exit with code 2 (`stages.lib.cli`).
    """
