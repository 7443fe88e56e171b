"""From files to documents: text of any kind, CSV and JSON lines, one file, a folder, or standard input.

    paths --find_sources--> [Source] --Reader--> Document, Document, ...

Ids are stable, so that indexing again replaces: a text file is one document with the path as it was given for an id, a
row has the id it brings, or else "path#row". A file that cannot be read never stops the rest: it is listed by name.
"""

from flowdex.readers.reader import EXPORT_VERSION, Format, Reader, ReaderOptions
from flowdex.readers.sources import ReadFailure, Source, find_sources

__all__ = ["EXPORT_VERSION", "Format", "ReadFailure", "Reader", "ReaderOptions", "Source", "find_sources"]
