"""Beam's --setup_file wants this file; the metadata is in pyproject.toml."""

from setuptools import setup

setup()
