"""Readers of an installation with several partitions: each has the methods of its namesake in `dispatcher/store/`.

What names a workspace goes to the partitions of that workspace; what is of the whole installation is asked of all partitions, and
put together. A partition that does not answer is noted (absent.py), and the others' answers stand.
"""
