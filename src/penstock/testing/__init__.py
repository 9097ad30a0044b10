"""Doubles, and the conformance suites that the real parts pass too."""
