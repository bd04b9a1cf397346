"""The pixels of slides' regions, in order, read ahead by one or several threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain, repeat
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from slpd_core import artifacts
from slpd_core.wsi import identity
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.outages import catch_os_errors
from slpd_core.wsi.reader import Slide

Key = TypeVar("Key")
Result = TypeVar("Result")


class RegionReader:
    """Reads the regions of a slide's file, if it is still the same slide; several threads may read at once.

    An outage looks like a broken slide, but passes. So after the first SlideError all of the file is read, and then the
    region once more. After a region that failed, those behind it fail at once.

    Args:
        slide_path: The file that the sheet names; it is opened by the first read.
        regions: The regions, with the fingerprint of the slide that their tissue was found on.
        jpeg_scaled_decoding: As in `Slide`.
        raise_slide_error: Whether a file that cannot be read counts as a bad slide.
        state_dir: Folder of the slides' memos, see `identity.slide_fingerprint`.
    """

    def __init__(
        self,
        slide_path: Path,
        regions: artifacts.Regions,
        *,
        jpeg_scaled_decoding: bool = False,
        raise_slide_error: bool = False,
        state_dir: Path | None = None,
    ) -> None:
        self.slide_path, self.regions = slide_path, regions
        self._jpeg_scaled_decoding, self._raise_slide_error = jpeg_scaled_decoding, raise_slide_error
        self._state_dir, self._lock = state_dir, Lock()
        self._reread = False
        self._failure: tuple[int, Exception] | None = None  # of the first region that failed
        self._slides: dict[bool, Slide] = {}  # as first opened, and as opened again after a SlideError

    def read(self, i: int) -> np.ndarray:
        """Read a region.

        Args:
            i: Its index.

        Returns:
            uint8 RGB (size_px, size_px, 3) at target_mpp.

        Raises:
            SlideError: The slide is broken; an UnreadableSlideError if its file cannot be read and `raise_slide_error`.
            OSError: The file cannot be read, and not `raise_slide_error`.
            ValueError: The file is another slide than the one whose tissue was found.
        """
        if self._failure and self._failure[0] < i:
            raise self._failure[1]
        try:
            with catch_os_errors(self.slide_path, raise_slide_error=self._raise_slide_error):
                reread = self._reread
                try:
                    return _read_region(self._open(reread=reread), self.regions, i)
                except SlideError:
                    if reread:
                        raise
                self._reread = True
                return _read_region(self._open(reread=True), self.regions, i)
        except Exception as error:  # of any kind: raised again here, and by the regions behind it
            with self._lock:
                self._failure = min(self._failure or (i, error), (i, error), key=itemgetter(0))
            raise

    def _open(self, *, reread: bool) -> Slide:
        """Open the slide after a check of its file; one that is open stays, as other threads may read from it."""
        info = self.regions.slide
        with self._lock:
            if reread not in self._slides:
                if reread or info.fingerprint:
                    check_unchanged(self.slide_path, info, None if reread else self._state_dir)
                self._slides[reread] = Slide(
                    self.slide_path,
                    info.mpp,
                    jpeg_scaled_decoding=self._jpeg_scaled_decoding,
                    missing_tiles=info.missing_tiles,
                )
            return self._slides[reread]

    def with_regions(self, regions: artifacts.Regions) -> "RegionReader":
        """Make a reader of other regions of the same slide, by the same rules.

        Args:
            regions: The regions.

        Returns:
            The reader, whose file is not open yet.
        """
        return RegionReader(
            self.slide_path,
            regions,
            jpeg_scaled_decoding=self._jpeg_scaled_decoding,
            raise_slide_error=self._raise_slide_error,
            state_dir=self._state_dir,
        )

    def close(self) -> None:
        """Close the file."""
        while self._slides:
            self._slides.popitem()[1].close()


def _read_region(slide: Slide, regions: artifacts.Regions, i: int) -> np.ndarray:
    x, y = regions.coords[i].tolist()
    return slide.read((x, y), (regions.size_px, regions.size_px), regions.target_mpp)


def _run_ahead(
    tasks: Iterable[tuple[Key, Callable[[], Result]]], threads: int
) -> Generator[tuple[Key, Future[Result]], None, None]:
    """Run tasks in threads, one task ahead with one thread, n + 1 with n; yield their finished results in order."""
    ahead = threads + (threads > 1)
    waiting: deque[tuple[Key, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for task in chain(tasks, repeat(None, ahead)):
            if task is not None:
                waiting.append((task[0], pool.submit(task[1])))
            if waiting and (task is None or len(waiting) > ahead):
                wait([waiting[0][1]])
                yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def read_regions_ahead(
    readers: Iterable[RegionReader], process: Callable[[RegionReader, np.ndarray], Result], *, threads: int = 1
) -> Iterator[tuple[RegionReader, int, Future[Result]]]:
    """Read the regions of slides ahead, across slides: one region with one thread, n + 1 with n threads.

    Args:
        readers: The slides; each is closed after its last region.
        process: Applied to a reader and its region's pixels in the thread that reads them.
        threads: Threads that read.

    Yields:
        Slide, index of the region and its finished result or error, in the order of slides and regions.
    """
    opened: list[RegionReader] = []

    def tasks() -> Iterator[tuple[tuple[RegionReader, int], Callable[[], Result]]]:
        for reader in readers:
            opened.append(reader)
            for i in range(len(reader.regions.coords)):
                yield (reader, i), partial(_read_and_process, reader, i, process)

    results = _run_ahead(tasks(), threads)
    try:
        for (reader, i), future in results:
            yield reader, i, future
            if i + 1 == len(reader.regions.coords):
                reader.close()
    finally:
        results.close()  # before the slides that its threads read
        for reader in opened:
            reader.close()


def _read_and_process(reader: RegionReader, i: int, process: Callable[[RegionReader, np.ndarray], Result]) -> Result:
    return process(reader, reader.read(i))


def iter_regions(slide: Slide, regions: artifacts.Regions) -> Iterator[np.ndarray]:
    """Iterate over the pixels of an open slide's regions; the next one is read in the meantime.

    Args:
        slide: An open slide.
        regions: Its regions.

    Yields:
        uint8 RGB (size_px, size_px, 3) at target_mpp, in the order of the coordinates.

    Raises:
        SlideError: The slide's data are broken; names the position.
    """
    tasks = ((i, partial(_read_region, slide, regions, i)) for i in range(len(regions.coords)))
    for _, pixels in _run_ahead(tasks, threads=1):
        yield pixels.result()


def iter_region_pixels(
    slide_path: Path,
    regions: artifacts.Regions,
    *,
    jpeg_scaled_decoding: bool = False,
    raise_slide_error: bool = False,
    state_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """Iterate over the pixels of the regions of a slide's file; the next one is read in the meantime.

    Args:
        slide_path, regions, jpeg_scaled_decoding, raise_slide_error, state_dir: As in `RegionReader`.

    Yields:
        uint8 RGB (size_px, size_px, 3), in the order of the coordinates.

    Raises:
        SlideError, OSError, ValueError: As `RegionReader.read`.
    """
    reader = RegionReader(
        slide_path,
        regions,
        jpeg_scaled_decoding=jpeg_scaled_decoding,
        raise_slide_error=raise_slide_error,
        state_dir=state_dir,
    )
    for _, _, pixels in read_regions_ahead([reader], lambda _, pixels: pixels):
        yield pixels.result()


def check_unchanged(slide_path: Path, slide: artifacts.SlideInfo, state_dir: Path | None) -> None:
    """Check that a file is still the slide whose tissue was found; without a memo all of it is read.

    Args:
        slide_path: The file that the sheet names.
        slide: The slide whose tissue was found.
        state_dir: Folder of the slides' memos; None reads the file.

    Raises:
        ValueError: It is another slide.
        OSError: The file cannot be read.
    """
    memo_path = state_dir and state_dir / f"{slide.slide_id}.json"
    if identity.slide_fingerprint(slide_path, memo_path) != slide.fingerprint and slide.fingerprint:
        raise ValueError(
            f"{slide_path}: replaced since the tissue of {slide.slide_id} was found; run snakemake again, it rebuilds "
            "the slide's stages"
        )
