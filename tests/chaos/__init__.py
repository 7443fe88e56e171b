"""Faults in a real flow under load: what clients see, what is lost, how long until all is well again.

    cd tests && python -m chaos [--rounds 50] [--only NAME] [--write ../docs/faults.md]

Each fault is a function `async (Setting) -> list[Row]`. It starts its own flow (`flow`), sends requests that are
checked (`load`) and does harm meanwhile.
"""
