"""Mutated requests against a flow that runs: none may crash it, hang it, or be answered as if it were our mistake.

cd tests && python -m mutation --requests 1000000

requests.py (valid ones of every surface) --mutate.py, by number--> bytes --surfaces.py--> running flow --> outcome
                                                                            watch.py: processes, logs, memory
"""
