"""An ordinary Jina executor: docarray objects in, docarray objects out. Nothing here is flowdex's."""

from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests


class Cleaner(Executor):
    """Puts each text on one line."""

    @requests(on="/encode")
    def clean(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        """Replace runs of white space by one space."""
        for doc in docs:
            doc.text = " ".join(doc.text.split())
        return docs
