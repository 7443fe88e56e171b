"""The command line: `flowdex VERB ...`, one module a verb, imported when the verb is used."""
