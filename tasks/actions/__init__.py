"""What operators do, apart from how they say it: each action takes the store and a value, and returns a value.

The commands turn options into such values and print what comes back. Nothing here knows a terminal; what is wrong is an error of
`dispatcher.errors`.
"""
