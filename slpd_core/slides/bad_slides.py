"""Bad slides: what is the slide's own fault, and when it is quarantined rather than ends the run."""

LONGEST_REASON = 1000


class SlideError(ValueError):
    """What is wrong lies in the slide itself.

    Its message may quote the slide: what does not show becomes a space, and of a long one the middle is left out.
    """

    def __init__(self, message: str) -> None:
        shown = "".join(sign if sign.isprintable() else " " for sign in message)
        half = LONGEST_REASON // 2
        super().__init__(shown if len(shown) <= LONGEST_REASON else f"{shown[:half]} ... {shown[-half:]}")


def what_quarantines(on_bad_slide: str, last_attempt: bool) -> tuple[type[Exception], ...]:
    """The errors that quarantine a slide; all others fail the job, and Snakemake tries it again.

    on_bad_slide: the ledger's setting; with "stop" nothing is quarantined. last_attempt: a file that still cannot be
    read on the last attempt is the slide's own fault, before that perhaps the network's.
    """
    if on_bad_slide == "stop":
        return ()
    return (SlideError, OSError) if last_attempt else (SlideError,)
