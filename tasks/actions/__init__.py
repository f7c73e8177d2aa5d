"""Operators' actions, without the command line: each takes the store and a value, and returns a value.

The commands turn options into such values and print what is returned. Nothing here prints; failures are errors from
`dispatcher.errors`.
"""
