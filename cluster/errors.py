"""What can go wrong with machines."""

from __future__ import annotations


class ClusterError(Exception):
    """Machines that could not be had, or were lost; the message says what to do. The CLI exits with 2."""
