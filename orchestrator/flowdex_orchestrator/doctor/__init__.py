"""`flowdex doctor`: what this machine lacks for a flow, and what to do about it.

    packages.py  Python and what is installed       --+
    machine.py   GPU, cores, memory, limits, ...    --+--> list[Check] --report.py--> lines | JSON, exit code
    flow.py      file, models, ports, index, state  --+

Each check is one function from facts to a `Check`; what reads the facts from the machine stands beside it. Nothing here
imports torch or an executor: versions come from metadata, and classes are asked in another process, with a time-out.
"""
