"""Sounds that are no music, one module a kind.

A kind has one function, `make(which, number, random)`: the name and the samples of one file of a set. `which` is
`train` or `test`, `number` says which file of its kind, `random` is a numpy Generator of this file alone.
"""
