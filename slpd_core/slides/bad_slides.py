"""Bad slides: what is the slide's own fault, and when it is quarantined rather than ends the run."""


class SlideError(ValueError):
    """What is wrong lies in the slide itself."""


def what_quarantines(on_bad_slide: str, last_attempt: bool) -> tuple[type[Exception], ...]:
    """The errors that quarantine a slide; all others fail the job, and Snakemake tries it again.

    on_bad_slide: the ledger's setting; with "stop" nothing is quarantined. last_attempt: a file that still cannot be
    read on the last attempt is the slide's own fault, before that perhaps the network's.
    """
    if on_bad_slide == "stop":
        return ()
    return (SlideError, OSError) if last_attempt else (SlideError,)
