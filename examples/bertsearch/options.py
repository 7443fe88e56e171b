"""The options that every script of bertsearch takes: the index, and where the flow is."""

from __future__ import annotations

import argparse
import os

from bertsearch import Addresses


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the shared options."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--index_name", default="jobsearch", help="name of the index [%(default)s]")
    made.add_argument("--grpc", default=os.environ.get("FLOWDEX_URL", Addresses.grpc), help="the flow [%(default)s]")
    made.add_argument("--http", default=Addresses.http, help="its HTTP address [%(default)s]")
    made.add_argument("--bert-port", type=int, default=Addresses.bert_port, help="its port for bert [%(default)s]")
    return made


def addresses(options: argparse.Namespace) -> Addresses:
    """Where the flow is, by the options."""
    return Addresses(options.grpc, options.http, options.bert_port)
